"""Scoring and search of a set of utterances in shards: several at once, and finished ones are kept for a second run."""

import contextlib
import dataclasses
import functools
import gzip
import queue
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import prefetch, run_all
from asr_kd.common.storage import atomic_open, read_json, write_json
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.client import Outcome, Search
from asr_kd.decode.lattices import select
from asr_kd.decode.output import lattice_text
from asr_kd.decode.recogniser import Recogniser
from asr_kd.decode.second_pass import SecondPass, make_second_pass
from asr_kd.decode.worker import SearchOptions
from asr_kd.lattices.archive import on_paths
from asr_kd.models.scorer import FrameScorer

Item = TypeVar("Item")

#: Utterances per shard, the unit of resuming; few, so that a short split keeps every worker busy.
SHARD_SIZE = 8
#: Bounds on a batch, padded to its longest utterance: frames (lattices take up to 100 kB per frame in the worker), and
#: bytes of scores.
MAX_BATCH_FRAMES = 12000
MAX_BATCH_BYTES = 128 << 20


@dataclasses.dataclass(frozen=True)
class Shard:
    """Utterances, and the file for their results."""

    path: Path
    cuts: list[MonoCut]


class Decoder:
    """Scores and searches utterances; each search decodes one shard at a time.

    A thread scores the next batch while the worker searches the current one.  Threads suffice, since scoring (NumPy,
    torch) and waiting for a worker release Python's global lock.

    Args:
        scorer: computes the frame scores of an utterance.
        searches: decode one shard each at the same time; the caller closes them.
        batch: maximum number of utterances per search.
        second_pass: what follows each search.
    """

    def __init__(
        self, scorer: FrameScorer, searches: Sequence[Search], batch: int = 4, second_pass: SecondPass | None = None
    ) -> None:
        self.scorer, self.searches, self.batch = scorer, searches, batch
        self.search = second_pass or SecondPass()
        self._free: queue.SimpleQueue[Search] = queue.SimpleQueue()
        for search in searches:
            self._free.put(search)

    def run(self, cuts: Sequence[MonoCut], options: SearchOptions, folder: Path, name: str) -> list[Path]:
        """Decode ``cuts``, except those in shards that are in ``folder`` already.

        Args:
            cuts: read when they are decoded, once more than for their lengths.

        Returns:
            The files of the shards, for ``read_records`` and ``total_seconds``.

        Raises:
            UserError: every utterance failed.
        """
        keys = [(-cut.num_frames, cut.id) for cut in cuts]
        order = sorted(range(len(keys)), key=keys.__getitem__)  # batches of similar lengths
        parts = {
            folder / f"{start // SHARD_SIZE:05d}.json": order[start : start + SHARD_SIZE]
            for start in range(0, len(order), SHARD_SIZE)
        }
        paths = [*parts]
        missing = [path for path in paths if not path.is_file()]
        if not missing:
            return paths
        shards = (Shard(path, [cuts[number] for number in parts[path]]) for path in missing)
        self.decode_shards(shards, options, f"decode {name}", len(missing))
        reasons = [record["reason"] for _, record in read_records(paths)]
        if all(reasons):
            shutil.rmtree(folder)  # so that the next run tries again, when the cause may have been removed
            raise UserError(f"no utterance could be decoded ({name}); the first one: {reasons[0]}")
        return paths

    def decode_shards(self, shards: Iterable[Shard], options: SearchOptions, title: str, total: int) -> None:
        """Decode ``total`` shards, one per search at the same time."""
        executor = ThreadPoolExecutor(len(self.searches))
        try:
            work = functools.partial(self.decode_shard, options=options)
            for _ in run_all(executor, work, shards, title, "shard", total):
                pass
        except BaseException:  # also Ctrl-C: do not wait for running searches
            for search in self.searches:
                search.stop()
            raise
        finally:
            executor.shutdown(cancel_futures=True)

    def decode_shard(self, shard: Shard, options: SearchOptions) -> None:
        """Decode one shard with a free search."""
        search = self._free.get()
        try:
            before, scoring = search.seconds, 0.0
            records: dict[str, dict[str, Any]] = {}
            with _lattice_writer(shard.path, options) as write_lattice:
                for cuts, scores, seconds in prefetch(self._scored(shard.cuts)):
                    scoring += seconds
                    outcomes = iter(self.search(search, [m for m in scores if isinstance(m, np.ndarray)], options))
                    for cut, matrix in zip(cuts, scores, strict=True):
                        outcome = Outcome(None, matrix) if isinstance(matrix, str) else next(outcomes)
                        records[cut.id] = _record(outcome)
                        write_lattice(cut.id, outcome)
            figures = {
                "audio_seconds": sum(cut.duration for cut in shard.cuts),
                "scoring_seconds": scoring,
                "search_seconds": search.seconds - before,
            }
            write_json(shard.path, {"utterances": records, **figures}, sealed=True)
        finally:
            self._free.put(search)

    def _scored(self, cuts: list[MonoCut]) -> Iterator[tuple[list[MonoCut], list[np.ndarray | str], float]]:
        """Batches of cuts, their scores (or why there are none), and the CPU seconds that scoring took."""
        for batch in self.batches(cuts, lambda cut: cut.num_frames):
            started = time.thread_time()
            scores = [self._score(cut) for cut in batch]
            yield batch, scores, time.thread_time() - started

    def _score(self, cut: MonoCut) -> np.ndarray | str:
        try:
            return self.scorer(cut)
        except Exception as error:  # one damaged utterance must not stop the others
            return f"no scores: {error or type(error).__name__}"

    @property
    def max_frames(self) -> int:
        """Maximum number of frames of a batch, which bounds the memory of a search."""
        return max(1, min(MAX_BATCH_FRAMES, MAX_BATCH_BYTES // (4 * self.searches[0].num_pdfs)))

    def batches(self, items: Iterable[Item], frames: Callable[[Item], int]) -> Iterator[list[Item]]:
        """Successive ``items`` that are searched together; an item longer than ``max_frames`` has its own batch.

        Args:
            frames: returns the length of an item.
        """
        batch: list[Item] = []
        longest = 0
        for item in items:
            longest = max(longest, frames(item))
            if batch and (len(batch) == self.batch or (len(batch) + 1) * longest > self.max_frames):
                yield batch
                batch, longest = [], frames(item)
            batch.append(item)
        if batch:
            yield batch


def build_decoder(recogniser: Recogniser, searches: Sequence[Search]) -> Decoder:
    """A decoder in this process.

    Raises:
        UserError: a model is missing, or does not fit the graph.
    """
    scorer = load_scorer(
        recogniser.models, recogniser.features, recogniser.num_pdfs, recogniser.silence_pdfs, recogniser.mean,
        recogniser.specialists, recogniser.top_k,
    )  # fmt: skip
    second_pass = make_second_pass(recogniser.words, recogniser.rescore, recogniser.mbr, recogniser.times)
    return Decoder(scorer, searches, recogniser.batch, second_pass)


def read_records(shards: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every utterance of the shards: its id, the fields of its ``Hypothesis`` (except the lattice), and ``reason``."""
    for path in shards:
        yield from read_json(path)["utterances"].items()


def total_seconds(shards: Sequence[Path]) -> dict[str, float]:
    """Sums over the shards: seconds of audio, and CPU seconds of scoring and of search."""
    contents = [read_json(path) for path in shards]
    return {n: sum(c[n] for c in contents) for n in ("audio_seconds", "scoring_seconds", "search_seconds")}


def lattice_path(shard: Path) -> Path:
    return shard.with_suffix(".lat.gz")


@contextlib.contextmanager
def _lattice_writer(shard: Path, options: SearchOptions) -> Iterator[Callable[[str, Outcome], None]]:
    """A function that writes an utterance's lattice to a file next to ``shard``, if ``options`` ask for lattices."""
    if not options.lattice:
        yield lambda name, outcome: None
        return
    with (
        atomic_open(lattice_path(shard), "wb") as file,
        gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed,  # no date: reproducible
    ):

        def write(name: str, outcome: Outcome) -> None:
            if outcome.hypothesis is not None and (lattice := outcome.hypothesis.lattice) is not None:
                kept = select(lattice, on_paths(*lattice.arcs[:, :2].T))
                packed.write(lattice_text(name, kept, options.acoustic_scale).encode())

        yield write


def _record(outcome: Outcome) -> dict[str, Any]:
    if outcome.hypothesis is None:
        return {"words": None, "reason": outcome.reason}
    fields = ("words", "acoustic", "graph", "grid", "grid_index", "confidences", "times")
    return {**{name: getattr(outcome.hypothesis, name) for name in fields}, "reason": ""}
