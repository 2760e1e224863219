"""Searches in this process, or in processes under the interpreter that has k2; one that dies is replaced."""

import contextlib
import dataclasses
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.decode import kernel, worker
from asr_kd.decode.prepare import K2_PYTHON_VARIABLE, exit_reason, worker_environment
from asr_kd.decode.worker import Hypothesis, SearchOptions

#: The interpreter of a worker process, which has k2; or what searches in this process.
By = Path | Literal["k2", "kernel"]


def check_scores(scores: np.ndarray, num_pdfs: int) -> str:
    """Why ``scores`` cannot be searched ("" if they can): k2 would abort or return nonsense."""
    if scores.ndim != 2 or scores.shape[1] != num_pdfs:
        return f"the scores have shape {tuple(scores.shape)}, but the graph has {num_pdfs} senones"
    if len(scores) == 0:
        return "the utterance has no frames"
    finite = np.isfinite(scores)
    if not finite.all():
        return f"the scores of {int((~finite.all(axis=1)).sum())} of {len(scores)} frames are NaN or infinite"
    return ""


class WorkerDied(Exception):
    """A worker process ended, or reported an error."""


class WorkerProcess:
    """A search worker under another interpreter; it loads k2 and the graph while the caller continues."""

    def __init__(self, graph: Path, python: Path) -> None:
        self._python, self._ready = python, False
        # The worker's output goes to a file, which is read only if the worker dies.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        read_end, write_end = os.pipe()
        self._replies = os.fdopen(read_end, "rb")
        try:
            self.process = subprocess.Popen(
                [str(python), worker.__file__, "serve", str(graph), str(write_end)],
                stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, pass_fds=[write_end],
                env=worker_environment(),
            )  # fmt: skip
        finally:
            os.close(write_end)

    def search(self, scores: list[np.ndarray], options: SearchOptions) -> tuple[list[Hypothesis], float]:
        """The best paths of ``scores`` [(T, C) float32], and the CPU seconds that the search took.

        Raises:
            WorkerDied: with the reason.
            UserError: the worker did not start: k2 is missing or built for another torch, or the graph is damaged.
        """
        self._wait_until_ready()
        assert self.process.stdin is not None
        try:
            worker.send(self.process.stdin, {"options": dataclasses.asdict(options)}, scores)
        except OSError:
            raise WorkerDied(self._reason()) from None
        header, arrays = self._receive()
        return worker.unpack_hypotheses(header, arrays), float(header["seconds"])

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.kill()
        self.process.wait()
        for file in (self.process.stdin, self._replies, self._log):
            with contextlib.suppress(OSError):  # buffered bytes that the dead worker will not read
                file.close()  # type: ignore[union-attr]

    def _wait_until_ready(self) -> None:
        if self._ready:
            return
        try:
            self._receive()
        except WorkerDied as error:
            raise UserError(
                f"the search worker under {self._python} did not start ({error}): check that it has torch and a k2 "
                "built for that torch (tools/setup.sh creates such an interpreter), or give another by --k2-python or "
                f"{K2_PYTHON_VARIABLE}"
            ) from None
        self._ready = True

    def _receive(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        try:
            header, arrays = worker.receive(self._replies)
        except (EOFError, OSError, ValueError):
            raise WorkerDied(self._reason()) from None
        if "error" in header:
            raise WorkerDied(self._reason(header["error"]))
        return header, arrays

    def _reason(self, error: str = "") -> str:
        """Why the worker ended: its exit status, or the ``error`` that it reported, and the line it printed on that."""
        self.process.kill()  # it closed its pipe, or k2 failed in it: it cannot be used any more
        code = self.process.wait()
        self._log.seek(0)
        return exit_reason(error.strip() or code, self._log.read().decode(errors="replace"))


class InProcess:
    """The search in this process: by the kernel, or by k2, whose failed checks abort the whole process."""

    def __init__(self, graph: Path, by: Literal["k2", "kernel"]) -> None:
        self._clock = time.thread_time if by == "kernel" else time.process_time  # k2 has threads of its own
        try:
            self._searcher: worker.Searcher = (kernel.KernelSearcher if by == "kernel" else worker.K2Searcher)(graph)
        except ImportError as error:
            raise UserError(f"--in-process needs k2 in this interpreter ({error}): leave out the flag") from None
        except ValueError as error:  # the graph is damaged
            raise UserError(str(error)) from None

    def search(self, scores: list[np.ndarray], options: SearchOptions) -> tuple[list[Hypothesis], float]:
        started = self._clock()
        try:
            hypotheses = self._searcher.search(scores, options)
        except (MemoryError, RuntimeError, ValueError) as error:
            raise WorkerDied(f"{type(error).__name__}: {error}") from None
        return hypotheses, self._clock() - started

    def kill(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclasses.dataclass
class Outcome:
    """The result for one utterance: a hypothesis, or the reason why there is none."""

    hypothesis: Hypothesis | None
    reason: str = ""


class Search:
    """Searches batches; a worker that dies is replaced, and its batch is repeated one utterance at a time.

    Args:
        graph: folder from ``prepared_graph``.
        by: the interpreter of a worker, which has k2; or what searches in this process.
        num_pdfs: number of columns that score matrices must have.

    Attributes:
        seconds: CPU seconds that searches have taken so far.
    """

    def __init__(self, graph: Path, by: By, num_pdfs: int) -> None:
        self.graph, self.by, self.num_pdfs = graph, by, num_pdfs
        self.engine: WorkerProcess | InProcess | None = None
        self.seconds = 0.0
        self._stopped = False

    def __call__(self, scores: list[np.ndarray], options: SearchOptions) -> list[Outcome]:
        """One outcome per matrix, in the same order; an utterance that cannot be searched does not stop the others.

        Args:
            scores: log-likelihoods (T, C) float32, unscaled.

        Raises:
            UserError: the worker does not start.
        """
        outcomes = [Outcome(None, check_scores(matrix, self.num_pdfs)) for matrix in scores]
        valid = [i for i, outcome in enumerate(outcomes) if not outcome.reason]
        if not valid:
            return outcomes
        try:
            searched = self._search([scores[i] for i in valid], options)
        except WorkerDied:
            searched = [self._search_alone(scores[i], options) for i in valid]
        for i, outcome in zip(valid, searched, strict=True):
            outcomes[i] = outcome
        return outcomes

    def start(self) -> None:
        """Start the worker now (otherwise the first search does): importing torch and k2 takes seconds."""
        if self.engine is None:
            by = self.by
            self.engine = InProcess(self.graph, by) if isinstance(by, str) else WorkerProcess(self.graph, by)

    def stop(self) -> None:
        """Make a search that runs in another thread end soon, with an error."""
        self._stopped = True
        engine = self.engine
        if engine is not None:
            engine.kill()

    def close(self) -> None:
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def _search_alone(self, scores: np.ndarray, options: SearchOptions) -> Outcome:
        try:
            return self._search([scores], options)[0]
        except WorkerDied as error:
            return Outcome(None, f"the search failed: {error}")

    def _search(self, scores: list[np.ndarray], options: SearchOptions) -> list[Outcome]:
        if self._stopped:
            raise RuntimeError("the search was stopped")
        self.start()
        assert self.engine is not None
        try:
            hypotheses, seconds = self.engine.search(scores, options)
        except WorkerDied:
            self.close()
            raise
        self.seconds += seconds
        no_path = "no path reached the end of the graph, even with a beam 4 times as wide"
        return [Outcome(h) if h.words is not None else Outcome(None, no_path) for h in hypotheses]


class SearchPool:
    """Searches that stay open from one network to the next; on short splits, most of the time goes into starting k2."""

    def __init__(self) -> None:
        self._key: tuple[Path, By, int] | None = None
        self._searches: list[Search] = []

    def __call__(self, count: int, graph: Path, by: By, num_pdfs: int) -> list[Search]:
        """The first ``count`` searches of the pool, with the arguments of ``Search``.

        The pool closes its searches when these arguments change.
        """
        if self._key != (graph, by, num_pdfs):
            self.close()
            self._key = graph, by, num_pdfs
        self._searches += [Search(graph, by, num_pdfs) for _ in range(count - len(self._searches))]
        self._searches[0].start()  # it loads k2 and the graph while the caller imports slow modules
        return self._searches[:count]

    def close(self) -> None:
        for search in self._searches:
            search.close()
        self._key, self._searches = None, []
