"""One set of utterances through scoring and search: several shards at once, each resumable."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import queue
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import ahead, run_all
from asr_kd.common.storage import atomic_open, read_json, write_json
from asr_kd.decode.client import Outcome, Search
from asr_kd.decode.output import lattice_text
from asr_kd.decode.worker import SearchOptions
from asr_kd.models.scorer import Scorer

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

Item = TypeVar("Item")

#: Utterances in a shard, the unit of resuming; few, so that a short split keeps every worker busy.
SHARD = 8
#: Bounds on a batch: frames (lattices take up to 100 kB a frame in the worker), and bytes of scores.
BATCH_FRAMES = 12000
BATCH_BYTES = 128 << 20


@dataclasses.dataclass(frozen=True)
class Shard:
    """Some utterances and the file for what was found."""

    path: Path
    cuts: list[MonoCut]


class Decoder:
    """Scores and searches utterances, a shard with each search at a time.

    A thread scores the next batch while the worker searches the last one; scoring (NumPy, torch) and
    waiting for a worker leave Python's lock alone, so threads do.

    Args:
        scorer: frame scores.
        searches: as many shards are decoded side by side; the caller closes them.
        batch: utterances searched together, at most.
    """

    def __init__(self, scorer: Scorer, searches: Sequence[Search], batch: int = 4) -> None:
        self.scorer, self.searches, self.batch = scorer, searches, batch
        self._free: queue.SimpleQueue[Search] = queue.SimpleQueue()
        for search in searches:
            self._free.put(search)

    def run(self, cuts: Sequence[MonoCut], options: SearchOptions, folder: Path, name: str) -> list[Path]:
        """Decode ``cuts``; shards that ``folder`` already holds are left as they are.

        Returns:
            The shards' files, for ``utterances`` and ``seconds``.

        Raises:
            UserError: every utterance failed.
        """
        ordered = sorted(cuts, key=lambda cut: (-cut.num_frames, cut.id))  # equal lengths side by side
        shards = [
            Shard(folder / f"{start // SHARD:05d}.json", ordered[start : start + SHARD])
            for start in range(0, len(ordered), SHARD)
        ]
        paths = [shard.path for shard in shards]
        missing = [shard for shard in shards if not shard.path.is_file()]
        if not missing:
            return paths
        self.decode(missing, options, f"decode {name}")
        reasons = [record["reason"] for _, record in utterances(paths)]
        if all(reasons):
            shutil.rmtree(folder)  # what went wrong may be mended: the next run is to try again
            raise UserError(f"no utterance could be decoded ({name}); the first one: {reasons[0]}")
        return paths

    def decode(self, shards: Sequence[Shard], options: SearchOptions, title: str) -> None:
        """Decode ``shards``, as many at once as there are searches."""
        executor = ThreadPoolExecutor(len(self.searches))
        try:
            for _ in run_all(executor, lambda s: self.shard(s, options), shards, title, "shard"):
                pass
        except BaseException:  # also Ctrl-C: do not wait for searches that go on
            for search in self.searches:
                search.stop()
            raise
        finally:
            executor.shutdown(cancel_futures=True)

    def shard(self, shard: Shard, options: SearchOptions) -> None:
        """Decode one shard with a search that is free."""
        search = self._free.get()
        try:
            before, scoring = search.seconds, 0.0
            records: dict[str, dict[str, Any]] = {}
            with _lattices(shard.path, options) as write_lattice:
                for cuts, scores, seconds in ahead(self._scored(shard.cuts)):
                    scoring += seconds
                    outcomes = iter(search([m for m in scores if isinstance(m, np.ndarray)], options))
                    for cut, matrix in zip(cuts, scores, strict=True):
                        outcome = Outcome(None, matrix) if isinstance(matrix, str) else next(outcomes)
                        records[cut.id] = _record(outcome)
                        write_lattice(cut.id, outcome)
            figures = {
                "audio_seconds": sum(cut.duration for cut in shard.cuts),
                "scoring_seconds": scoring,
                "search_seconds": search.seconds - before,
            }
            write_json(shard.path, {"utterances": records, **figures})
        finally:
            self._free.put(search)

    def _scored(self, cuts: list[MonoCut]) -> Iterator[tuple[list[MonoCut], list[np.ndarray | str], float]]:
        """Batches of cuts, their scores (or why there are none) and the CPU seconds that took."""
        for batch in self._batches(cuts):
            started = time.thread_time()
            scores = [self._score(cut) for cut in batch]
            yield batch, scores, time.thread_time() - started

    def _score(self, cut: MonoCut) -> np.ndarray | str:
        try:
            return self.scorer(cut)
        except Exception as error:  # one damaged utterance must not end the others
            return f"no scores: {error or type(error).__name__}"

    def _batches(self, cuts: list[MonoCut]) -> Iterator[list[MonoCut]]:
        start = 0
        while start < len(cuts):
            frames = max(1, cuts[start].num_frames)  # of the longest: cuts come sorted
            scores = 4 * self.searches[0].num_pdfs * frames
            size = max(1, min(self.batch, BATCH_FRAMES // frames, BATCH_BYTES // scores))
            yield cuts[start : start + size]
            start += size


def utterances(shards: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every utterance in the shards, with its fields of ``Found`` (lattice apart) and ``reason``."""
    for path in shards:
        yield from read_json(path)["utterances"].items()


def seconds(shards: Sequence[Path]) -> dict[str, float]:
    """Sums over the shards of audio, scoring and search seconds; the last two of one core."""
    kept = [read_json(path) for path in shards]
    return {n: sum(k[n] for k in kept) for n in ("audio_seconds", "scoring_seconds", "search_seconds")}


def lattice_path(shard: Path) -> Path:
    return shard.with_suffix(".lat.gz")


@contextlib.contextmanager
def _lattices(shard: Path, options: SearchOptions) -> Iterator[Callable[[str, Outcome], None]]:
    """A function that writes an utterance's lattice beside ``shard``, or nothing if none is asked for."""
    if not options.lattice:
        yield lambda name, outcome: None
        return
    with (
        atomic_open(lattice_path(shard), "wb") as file,
        gzip.GzipFile("", "wb", compresslevel=4, fileobj=file, mtime=0) as packed,  # no date: same bytes again
    ):

        def write(name: str, outcome: Outcome) -> None:
            if outcome.found is not None and outcome.found.lattice is not None:
                packed.write(lattice_text(name, outcome.found.lattice, options.acoustic_scale).encode())

        yield write


def _record(outcome: Outcome) -> dict[str, Any]:
    found = outcome.found
    if found is None:
        return {"words": None, "reason": outcome.reason}
    fields = ("words", "acoustic", "graph", "grid", "grid_index")
    return {**{name: getattr(found, name) for name in fields}, "reason": ""}
