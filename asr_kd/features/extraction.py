"""The work of the features stage: Lhotse's filterbanks in parallel chunks that survive a kill."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import Features, NumpyFilesWriter, Recording, SupervisionSegment
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_all
from asr_kd.common.storage import atomic_open, read_json, save_array, write_json
from asr_kd.corpora.copies import noisy_name
from asr_kd.corpora.manifests import Skipped, count_lines, jsonl_writer, read_jsonl, require_some, write_skipped
from asr_kd.features.audio import SAMPLING_RATE, sample_fault
from asr_kd.features.babble import noisy_copies, talkers, with_babble
from asr_kd.features.config import Config, Over
from asr_kd.features.filterbanks import FRAME_SHIFT, NUM_MELS, log_mels
from asr_kd.features.normalise import frames_for, moments, sums

CHUNK = 200  # utterances a job, which is also what a kill can lose


@dataclass(frozen=True)
class _Job:
    cuts: Sequence[MonoCut]
    storage: Path  # folder of this chunk's arrays
    result: Path  # JSON that appears when the chunk is complete
    per_speaker: bool
    over: Over


def _extract_chunk(job: _Job) -> None:
    """Store the features of a chunk, then its cuts, what was skipped, and by speaker (or by utterance) two times
    the sums of x and x²: of the frames that statistics are taken of, and of all."""
    done: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    summed: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((2, 3, NUM_MELS)))
    writer = NumpyFilesWriter(job.storage)
    for cut in job.cuts:
        features = _features_of(cut)
        if isinstance(features, str):
            skipped.append((cut.id, features))
            continue
        manifest = Features(
            type="kaldi-fbank", num_frames=len(features), num_features=NUM_MELS, frame_shift=FRAME_SHIFT,
            sampling_rate=SAMPLING_RATE, start=0.0, duration=cut.duration, storage_type=writer.name,
            storage_path=str(writer.storage_path), storage_key=writer.write(cut.id, features),
            recording_id=cut.recording_id, channels=0,
        )  # fmt: skip
        done.append(fastcopy(cut, features=manifest).to_dict())
        key = cut.supervisions[0].speaker if job.per_speaker else cut.id
        summed[key] += np.stack([sums(frames_for(features, job.over)), sums(features)])
    with atomic_open(job.result) as file:
        json.dump({"cuts": done, "skipped": skipped, "sums": {k: v.tolist() for k, v in summed.items()}}, file)


def _features_of(cut: MonoCut) -> np.ndarray | str:
    """Raw log-mels of a cut's recording, or why there are none."""
    try:
        samples = cut.load_audio()[0]
        if cut.has_custom("babble") and np.any(samples):
            samples = with_babble(samples, cut)
    except Exception as error:  # whatever a decoder may raise: one bad file must not end the stage
        return f"damaged recording ({type(error).__name__}: {str(error).splitlines()[0]})"
    if len(samples) != cut.num_samples:
        return f"{len(samples)} samples instead of the {cut.num_samples} of its header"
    return sample_fault(samples) or log_mels(samples)


def read_cuts(data: Path, split: str, speeds: Sequence[float] = ()) -> Iterator[MonoCut]:
    """One cut an utterance, named as its supervision; then again at each of ``speeds``, as other speakers.

    Raises:
        UserError: the manifests are missing or damaged.
    """
    for factor in (1.0, *speeds):
        recordings = read_jsonl(data / f"recordings_{split}.jsonl.gz")
        supervisions = read_jsonl(data / f"supervisions_{split}.jsonl.gz")
        for one, other in zip(recordings, supervisions, strict=True):
            recording, supervision = Recording.from_dict(one), SupervisionSegment.from_dict(other)
            cut = MonoCut(
                id=supervision.id, start=0.0, duration=recording.duration, channel=0,
                recording=recording, supervisions=[supervision],
            )  # fmt: skip
            if factor != 1.0:
                cut = cut.perturb_speed(factor)
                # A voice at another speed has another spectrum: normalise it by its own statistics.
                cut.supervisions[0].speaker = f"{supervision.speaker}_sp{factor}"
                cut.custom = {"source_id": supervision.id, "source_speaker": supervision.speaker}
            yield cut


def _chunks(cuts: Iterator[MonoCut]) -> Iterator[list[MonoCut]]:
    chunk: list[MonoCut] = []
    for cut in cuts:
        chunk.append(cut)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Moments:
    """Statistics by speaker, and of the training split after normalisation, from the chunks' sums."""

    def __init__(self) -> None:
        self.speakers: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((2, 3, NUM_MELS)))
        self.normalised = np.zeros((3, NUM_MELS))  # frames, Σx, Σx² of the training split, normalised

    def add_normalised(self, summed: np.ndarray) -> None:
        """Σ and Σ² of (x − m)/s follow from those of x: no second pass over the features."""
        mean, std = moments(summed[0])
        count, total, squares = summed[1]
        self.normalised += np.stack(
            [count, (total - count * mean) / std, (squares - 2 * mean * total + count * mean**2) / std**2]
        )


def extract_corpus(config: Config, executor: Executor) -> dict[str, dict[str, int]]:
    """Fill ``config.out`` with features, cuts and statistics of every split; returns {split: {cuts, frames, skipped}}.

    Chunks that an interrupted run finished are taken over.

    Raises:
        UserError: ``config.data`` has no train split, or nothing usable is left of a split.
    """
    data, out = config.data, config.out.resolve()
    splits = sorted(p.name[len("recordings_") : -len(".jsonl.gz")] for p in data.glob("recordings_*.jsonl.gz"))
    if "train" not in splits:
        raise UserError(f"{data} has no recordings_train.jsonl.gz: run asr_kd.corpora first")
    statistics = _Moments()
    figures: dict[str, dict[str, int]] = {}
    for split, cuts, total in _cuts_by_split(config, splits):
        results = _run_split(config, split, cuts, total, executor)
        figures[split] = _merge_split(out, split, results, statistics, config.normalise == "speaker")
    _write_statistics(config, statistics)
    shutil.rmtree(out / "chunks")
    return figures


def _cuts_by_split(config: Config, splits: Sequence[str]) -> Iterator[tuple[str, Iterator[MonoCut], int]]:
    """(split, its cuts, how many), those with noise among them."""

    def speeds(split: str) -> Sequence[float]:
        return config.speed_perturb if split == "train" else ()

    def cuts(split: str) -> Iterator[MonoCut]:
        return read_cuts(config.data, split, speeds(split))

    counts = {r: count_lines(config.data / f"recordings_{r}.jsonl.gz") * (1 + len(speeds(r))) for r in splits}
    for split in splits:
        yield split, cuts(split), counts[split]
    for split in ("train", "dev"):
        if config.babble and split in splits:
            noisy = noisy_copies(cuts(split), config.babble, talkers(config.data, split))
            yield f"{split}_noisy", noisy, counts[split]
    for snr in config.babble if "test" in splits else ():
        # Voices of dev, which no network has heard.
        noisy = noisy_copies(cuts("test"), [snr], talkers(config.data, "dev"))
        yield noisy_name("test", snr), noisy, counts["test"]


def _run_split(
    config: Config, split: str, cuts_of_split: Iterator[MonoCut], total: int, executor: Executor
) -> list[Path]:
    """Run the chunks that are not there yet; returns the chunks' result files in order."""
    results: list[Path] = []
    out = config.out.resolve()

    def jobs() -> Iterator[_Job]:
        for i, cuts in enumerate(_chunks(cuts_of_split)):
            results.append(out / "chunks" / split / f"{i:06d}.json")
            if not results[-1].exists():
                storage = out / "storage" / split / f"{i:06d}"
                yield _Job(cuts, storage, results[-1], config.normalise == "speaker", config.normalise_over)

    for _ in run_all(executor, _extract_chunk, jobs(), f"features of {split}", "chunk", -(-total // CHUNK)):
        pass
    return results


def _merge_split(
    out: Path, split: str, results: Sequence[Path], statistics: _Moments, per_speaker: bool
) -> dict[str, int]:
    """Write cuts_SPLIT.jsonl.gz and skipped_SPLIT.tsv from the chunks, and add up their statistics."""
    skipped: list[Skipped] = []
    kept, frames = 0, 0
    train_speakers: set[str] = set()
    with jsonl_writer(out / f"cuts_{split}.jsonl.gz") as add_cut:
        for path in results:
            chunk = read_json(path)
            skipped += [(str(i), str(reason)) for i, reason in chunk["skipped"]]
            for cut in chunk["cuts"]:
                add_cut(cut)
                kept, frames = kept + 1, frames + cut["features"]["num_frames"]
            for key, value in chunk["sums"].items():
                if per_speaker:
                    statistics.speakers[key] += np.array(value)
                    train_speakers.add(key)
                elif split == "train":
                    statistics.add_normalised(np.array(value))
    write_skipped(out, split, skipped)
    require_some(kept, skipped, split, out)
    if per_speaker and split == "train":
        for speaker in sorted(train_speakers):
            statistics.add_normalised(statistics.speakers[speaker])
    print(f"{split}: {kept} utterances, {frames} frames, {len(skipped)} skipped", flush=True)
    return {"cuts": kept, "frames": frames, "skipped": len(skipped)}


def _write_statistics(config: Config, statistics: _Moments) -> None:
    """cmvn.json, cmvn_speakers.npy (S, 2, 40) and cmvn_global.npy (2, 40)."""
    speakers = sorted(statistics.speakers)
    rows = [moments(statistics.speakers[speaker][0]) for speaker in speakers]
    save_array(config.out / "cmvn_speakers.npy", np.array(rows).reshape(-1, 2, NUM_MELS))
    save_array(config.out / "cmvn_global.npy", np.array(moments(statistics.normalised)))
    description = {
        "normalise": config.normalise, "normalise_over": config.normalise_over,
        "train_frames": int(statistics.normalised[0, 0]), "speakers": speakers,
    }  # fmt: skip
    write_json(config.out / "cmvn.json", description)
