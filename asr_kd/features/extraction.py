"""Extraction of features: parallel chunks that an interrupted run leaves for the next one to reuse."""

import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import Features, NumpyFilesWriter
from lhotse.audio.backend import audio_backend
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy

from asr_kd.common.checksums import array_checksum
from asr_kd.common.parallel import run_all
from asr_kd.common.storage import read_json, save_array, verify, write_json
from asr_kd.corpora.cuts import checksum_field, storage_key
from asr_kd.corpora.manifests import Skipped, jsonl_writer, require_utterances, write_skipped
from asr_kd.features.audio import SAMPLING_RATE, sample_fault
from asr_kd.features.babble import add_babble
from asr_kd.features.config import Config
from asr_kd.features.cuts import cuts_by_split
from asr_kd.features.filterbanks import FRAME_SHIFT, NUM_MELS, log_mels
from asr_kd.features.normalise import find_speech, segments, speech_sums

CHUNK_SIZE = 200  # utterances per job, and at most as many are lost when a job is killed


def extract_corpus(config: Config, executor: Executor) -> dict[str, dict[str, int]]:
    """Write features, cuts and statistics of every split to ``config.out``; return {split: {cuts, frames, skipped}}.

    Raises:
        UserError: ``config.data`` has no train split, or no usable utterance is left of a split.
    """
    out = config.out.resolve()
    speakers: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((3, NUM_MELS)))
    figures: dict[str, dict[str, int]] = {}
    for split, cuts, total in cuts_by_split(config):
        results = _run_split(config, split, cuts, total, executor)
        figures[split] = _merge_split(out, split, results, speakers)
    names = sorted(speakers)
    front_end = f"{NUM_MELS} log-mels at {SAMPLING_RATE} Hz, normalised by {config.normalise}"
    write_json(out / "cmvn.json", {"front_end": front_end, "speakers": names})
    means = [speakers[name] / speakers[name][0] for name in names]
    save_array(out / "cmvn_speakers.npy", np.array(means).reshape(-1, 3, NUM_MELS))
    shutil.rmtree(out / "chunks")
    return figures


@dataclass(frozen=True)
class _Job:
    cuts: Sequence[MonoCut]
    storage: Path  # folder of this chunk's arrays
    result: Path  # JSON that appears when the chunk is complete
    per_speaker: bool


def _run_split(config: Config, split: str, cuts: Iterator[MonoCut], total: int, executor: Executor) -> list[Path]:
    """Extract the chunks that have no result yet; return the result files of all chunks in order."""
    results: list[Path] = []
    out = config.out.resolve()

    def jobs() -> Iterator[_Job]:
        for i, chunk in enumerate(iter(lambda: list(islice(cuts, CHUNK_SIZE)), [])):
            results.append(out / "chunks" / split / f"{i:06d}.json")
            if not results[-1].exists():
                storage = out / "storage" / split / f"{i:06d}"
                yield _Job(chunk, storage, results[-1], config.normalise == "speaker")

    for _ in run_all(executor, _extract_chunk, jobs(), f"features of {split}", "chunk", -(-total // CHUNK_SIZE)):
        pass
    return results


def _extract_chunk(job: _Job) -> None:
    """Store the features of a chunk, and write ``job.result``.

    The result holds the chunk's cuts, the skipped utterances, and the sums for the statistics of each speaker.
    """
    cuts: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((3, NUM_MELS)))
    writer = NumpyFilesWriter(job.storage)
    for cut in job.cuts:
        with audio_backend("LibsndfileBackend"):  # the others start programs, or read what corpora did not examine
            features = _compute_features(cut)
        if isinstance(features, str):
            skipped.append((cut.id, features))
            continue
        manifest = Features(
            type="kaldi-fbank", num_frames=len(features), num_features=NUM_MELS, frame_shift=FRAME_SHIFT,
            sampling_rate=SAMPLING_RATE, start=cut.start, duration=cut.duration, storage_type=writer.name,
            storage_path=str(writer.storage_path), storage_key=writer.write(storage_key(cut.id), features),
            recording_id=cut.recording_id, channels=0,
        )  # fmt: skip
        custom = {**(cut.custom or {}), checksum_field("features"): array_checksum(features)}
        cuts.append(fastcopy(cut, features=manifest, custom=custom).to_dict())
        if job.per_speaker:
            for segment in segments(features):
                sums[cut.supervisions[0].speaker] += speech_sums(segment, find_speech(segment))
    result = {"cuts": cuts, "skipped": skipped, "sums": {k: v.tolist() for k, v in sums.items()}}
    write_json(job.result, result, sealed=True)


def _compute_features(cut: MonoCut) -> np.ndarray | str:
    """Raw log-mels of a cut's recording, or the reason why there are none."""
    for source in cut.recording.sources:  # audio of the embedded corpus
        verify(Path(source.source))
    try:
        samples = cut.load_audio()[0]
        if cut.has_custom("babble") and not sample_fault(samples):
            samples = add_babble(samples, cut)
    except Exception as error:  # a decoder may raise anything, and one bad file must not end the stage
        return f"damaged recording ({type(error).__name__}: {str(error).splitlines()[0]})"
    if len(samples) != cut.num_samples:
        return f"{len(samples)} samples instead of the {cut.num_samples} of its header"
    return sample_fault(samples) or log_mels(samples)


def _merge_split(out: Path, split: str, results: Sequence[Path], speakers: dict[str, np.ndarray]) -> dict[str, int]:
    """Write cuts_SPLIT.jsonl.gz and skipped_SPLIT.tsv from the chunks' results, and add their sums to ``speakers``."""
    skipped: list[Skipped] = []
    utterances, frames = 0, 0
    with jsonl_writer(out / f"cuts_{split}.jsonl.gz") as add_cut:
        for path in results:
            chunk = read_json(path)
            skipped += [(str(i), str(reason)) for i, reason in chunk["skipped"]]
            for cut in chunk["cuts"]:
                add_cut(cut)
                utterances, frames = utterances + 1, frames + cut["features"]["num_frames"]
            for speaker, sums in chunk["sums"].items():
                speakers[speaker] += np.array(sums)
    write_skipped(out, split, skipped)
    require_utterances(utterances, skipped, split, out)
    print(f"{split}: {utterances} utterances, {frames} frames, {len(skipped)} skipped", flush=True)
    return {"cuts": utterances, "frames": frames, "skipped": len(skipped)}
