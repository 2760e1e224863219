"""Extraction of features: parallel chunks that an interrupted run leaves for the next one to reuse."""

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
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
from asr_kd.features.audio import sample_fault
from asr_kd.features.babble import add_babble
from asr_kd.features.config import Config
from asr_kd.features.cuts import cuts_by_split
from asr_kd.features.degrade import degrade
from asr_kd.features.extractors import compute_features, make_front_end
from asr_kd.features.front_end import DESCRIPTION, FRAME_SHIFT, FrontEnd
from asr_kd.features.given import given_features, given_front_end
from asr_kd.features.normalise import find_speech, segments, speech_sums

#: A cut, whose length may have changed, with its features (T, F) float32; or the reason why there are none.
Made = tuple[MonoCut, np.ndarray] | str
Make = Callable[[MonoCut], Made]
CHUNK_SIZE = 200  # utterances per job, and at most as many are lost when a job is killed


def extract_corpus(config: Config, executor: Executor) -> dict[str, dict[str, int]]:
    """Write features, cuts and statistics of every split to ``config.out``; return {split: {cuts, frames, skipped}}.

    Raises:
        UserError: ``config.data`` has no train split, or no usable utterance is left of a split.
    """
    given = config.kind == "given"
    front_end = given_front_end(config.data, config.normalise) if given else make_front_end(config)
    make: Make = partial(_given, config.data.resolve(), front_end) if given else partial(_compute_features, front_end)
    splits = ((split, cuts, total, make) for split, cuts, total in cuts_by_split(config, front_end.sampling_rate))
    return write_features(config.out, front_end, splits, executor)


def write_features(
    folder: Path, front_end: FrontEnd, splits: Iterable[tuple[str, Iterator[MonoCut], int, Make]], executor: Executor
) -> dict[str, dict[str, int]]:
    """Write features, cuts and statistics of splits; return {split: {cuts, frames, skipped}}.

    Args:
        folder: where; an interrupted run leaves chunks there that are used again.
        front_end: what the features are.
        splits: name, cuts, number of cuts, and what makes their features, which must pickle.

    Raises:
        UserError: no usable utterance is left of a split.
    """
    out = folder.resolve()
    shape = 3, front_end.num_features
    speakers: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(shape))
    figures: dict[str, dict[str, int]] = {}
    for split, cuts, total, make in splits:
        results = _run_split(out, front_end, split, cuts, total, make, executor)
        figures[split] = _merge_split(out, split, results, speakers)
    names = sorted(speakers)
    write_json(out / DESCRIPTION, {**front_end.to_json(), "speakers": names})
    means = [speakers[name] / speakers[name][0] for name in names]
    save_array(out / "cmvn_speakers.npy", np.array(means).reshape(-1, *shape))
    shutil.rmtree(out / "chunks")
    return figures


@dataclass(frozen=True)
class _Job:
    cuts: Sequence[MonoCut]
    make: Make
    front_end: FrontEnd
    storage: Path  # folder of this chunk's arrays
    result: Path  # JSON that appears when the chunk is complete


def _run_split(
    out: Path, front_end: FrontEnd, split: str, cuts: Iterator[MonoCut], total: int, make: Make, executor: Executor
) -> list[Path]:
    """Extract the chunks that have no result yet; return the result files of all chunks in order."""
    results: list[Path] = []

    def jobs() -> Iterator[_Job]:
        for i, chunk in enumerate(iter(lambda: list(islice(cuts, CHUNK_SIZE)), [])):
            results.append(out / "chunks" / split / f"{i:06d}.json")
            if not results[-1].exists():
                storage = out / "storage" / split / f"{i:06d}"
                yield _Job(chunk, make, front_end, storage, results[-1])

    for _ in run_all(executor, _extract_chunk, jobs(), f"features of {split}", "chunk", -(-total // CHUNK_SIZE)):
        pass
    return results


def _extract_chunk(job: _Job) -> None:
    """Store the features of a chunk, and write ``job.result``.

    The result holds the chunk's cuts, the skipped utterances, and the sums for the statistics of each speaker.
    """
    cuts: list[dict[str, Any]] = []
    skipped: list[Skipped] = []
    front_end = job.front_end
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((3, front_end.num_features)))
    writer = NumpyFilesWriter(job.storage)
    for cut in job.cuts:
        with audio_backend("LibsndfileBackend"):  # the others start programs, or read what corpora did not examine
            made = job.make(cut)
        if isinstance(made, str):
            skipped.append((cut.id, made))
            continue
        cut, features = made
        manifest = Features(
            type=front_end.extractor, num_frames=len(features), num_features=front_end.num_features,
            frame_shift=FRAME_SHIFT, sampling_rate=front_end.sampling_rate, start=cut.start, duration=cut.duration,
            storage_type=writer.name, storage_path=str(writer.storage_path),
            storage_key=writer.write(storage_key(cut.id), features), recording_id=cut.recording_id, channels=0,
        )  # fmt: skip
        custom = {**(cut.custom or {}), checksum_field("features"): array_checksum(features)}
        cuts.append(fastcopy(cut, features=manifest, custom=custom).to_dict())
        if front_end.normalise == "speaker":
            for segment in segments(front_end, features):
                sums[cut.supervisions[0].speaker] += speech_sums(front_end, segment, find_speech(front_end, segment))
    result = {"cuts": cuts, "skipped": skipped, "sums": {k: v.tolist() for k, v in sums.items()}}
    write_json(job.result, result, sealed=True)


def _given(data: Path, front_end: FrontEnd, cut: MonoCut) -> Made:
    features = given_features(cut, data, front_end)
    return features if isinstance(features, str) else (cut, features)


def _compute_features(front_end: FrontEnd, cut: MonoCut) -> Made:
    """A cut, whose length its condition may change, and its raw features; or the reason why there are none."""
    for source in cut.recording.sources:  # audio of the embedded corpus
        verify(Path(source.source))
    try:
        samples = cut.load_audio()[0]
        if len(samples) != cut.num_samples:
            return f"{len(samples)} samples instead of the {cut.num_samples} of its header"
        if fault := sample_fault(samples, cut.sampling_rate):
            return fault
        if cut.has_custom("babble"):
            samples = add_babble(samples, cut)
        if cut.has_custom("condition"):
            cut, samples = degrade(cut, samples)
    except Exception as error:  # a decoder may raise anything, and one bad file must not end the stage
        return f"damaged recording ({type(error).__name__}: {str(error).splitlines()[0]})"
    return sample_fault(samples, cut.sampling_rate) or (cut, compute_features(front_end, samples))


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
