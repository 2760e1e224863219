"""The parent's side of the search: which interpreter, which graph, and workers that may die."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import asr_kd
from asr_kd.common.errors import UserError
from asr_kd.common.storage import path_fingerprint
from asr_kd.decode import worker
from asr_kd.decode.worker import Found, SearchOptions

#: Names the interpreter that has k2.
ENVIRONMENT = "ASR_KD_K2_PYTHON"


def find_k2_python(asked: Path | None = None) -> Path:
    """The interpreter for search workers: ``asked``, else $ASR_KD_K2_PYTHON, else .venv-k2 beside the
    package's folder (where tools/setup.sh puts it), else this one if it has k2.

    Raises:
        UserError: none of them exists.
    """
    named = asked or (Path(os.environ[ENVIRONMENT]) if os.environ.get(ENVIRONMENT) else None)
    if named is not None:
        if not os.access(named, os.X_OK):
            origin = "--k2-python" if asked else f"the variable {ENVIRONMENT}"
            raise UserError(f"{named} (from {origin}) is not a program: give the Python interpreter that has k2")
        return named
    beside = Path(asr_kd.__file__).resolve().parents[1] / ".venv-k2" / "bin" / "python"
    if beside.exists():
        return beside
    if importlib.util.find_spec("k2") is not None:
        return Path(sys.executable)
    raise UserError(
        f"no interpreter with k2: run tools/setup.sh, or give one by --k2-python PATH or the variable {ENVIRONMENT}"
    )


def prepared_graph(graph: Path, python: Path | None, cache: Path | None = None) -> Path:
    """The folder of ``graph``/HCLG.fst as arrays for k2, made if it is not there yet.

    Args:
        graph: folder of the graph stage.
        python: the interpreter to convert with; None: this one.
        cache: where prepared graphs are kept, each under its fingerprint; default ``graph``.k2 beside ``graph``.

    Raises:
        UserError: HCLG.fst is missing or damaged, or k2 does not work there.
    """
    source = graph / "HCLG.fst"
    cache = cache or graph.resolve().with_name(graph.resolve().name + ".k2")
    folder = cache / f"{path_fingerprint(source)}-{worker.FORMAT}"
    if folder.is_dir():
        return folder
    if not source.is_file():
        raise UserError(f"{source} is missing: run python -m asr_kd.hmm.graph first")
    if python is None:
        worker.prepare(source, folder)
    else:
        command = [str(python), worker.__file__, "prepare", str(source), str(folder)]
        done = subprocess.run(command, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if done.returncode != 0:
            raise UserError(
                f"{source} could not be prepared for k2 under {python} "
                f"({_death(done.returncode, done.stderr.decode(errors='replace'))}): "
                "if it is damaged, run python -m asr_kd.hmm.graph again"
            )
    for old in cache.iterdir():  # graphs are large: keep the newest only
        if old != folder and not old.name.startswith("."):
            shutil.rmtree(old, ignore_errors=True)
    return folder


def complaint(scores: np.ndarray, num_pdfs: int) -> str:
    """Why ``scores`` cannot be searched ("" if they can): k2 would abort or return nonsense."""
    if scores.ndim != 2 or scores.shape[1] != num_pdfs:
        return f"scores of shape {tuple(scores.shape)}, but the graph has {num_pdfs} senones"
    if len(scores) == 0:
        return "no frames"
    finite = np.isfinite(scores)
    if not finite.all():
        return f"scores of {int((~finite.all(axis=1)).sum())} of {len(scores)} frames are NaN or infinite"
    return ""


class WorkerDied(Exception):
    """A worker's process ended, or it gave up on what it was sent."""


class WorkerProcess:
    """A search worker under another interpreter; it loads k2 and the graph while the caller goes on."""

    def __init__(self, graph: Path, python: Path) -> None:
        self._python, self._ready = python, False
        # What the worker prints goes to a file: nobody reads it unless the worker dies.
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        answers, theirs = os.pipe()
        self._answers = os.fdopen(answers, "rb")
        try:
            self.process = subprocess.Popen(
                [str(python), worker.__file__, "serve", str(graph), str(theirs)],
                stdin=subprocess.PIPE, stdout=self._log, stderr=self._log, pass_fds=[theirs], env=_environment(),
            )  # fmt: skip
        finally:
            os.close(theirs)

    def search(self, scores: list[np.ndarray], options: SearchOptions) -> tuple[list[Found], float]:
        """Best paths of ``scores`` [(T, C) float32], and the CPU seconds they took.

        Raises:
            WorkerDied: with the reason.
            UserError: it did not even come up: no k2, a k2 for another torch, a damaged graph.
        """
        self._wait()
        assert self.process.stdin is not None
        try:
            worker.send(self.process.stdin, {"options": dataclasses.asdict(options)}, scores)
        except OSError:
            raise WorkerDied(self._reason()) from None
        header, arrays = self._receive()
        return worker.unpack_found(header, arrays), float(header["seconds"])

    def kill(self) -> None:
        self.process.kill()

    def close(self) -> None:
        self.kill()
        self.process.wait()
        for file in (self.process.stdin, self._answers, self._log):
            with contextlib.suppress(OSError):  # bytes that the dead worker will never read
                file.close()  # type: ignore[union-attr]

    def _wait(self) -> None:
        if self._ready:
            return
        try:
            self._receive()
        except WorkerDied as error:
            raise UserError(
                f"the search worker under {self._python} did not start ({error}): check that it has torch and a k2 "
                f"built for it (tools/setup.sh makes one), or give another by --k2-python or {ENVIRONMENT}"
            ) from None
        self._ready = True

    def _receive(self) -> tuple[dict[str, Any], list[np.ndarray]]:
        try:
            header, arrays = worker.receive(self._answers)
        except (EOFError, OSError, ValueError):
            raise WorkerDied(self._reason()) from None
        if "error" in header:
            raise WorkerDied(self._reason(header["error"]))
        return header, arrays

    def _reason(self, error: str = "") -> str:
        """How the worker ended, or ``error`` that it reported, with what it printed about it."""
        self.process.kill()  # it closed its pipe, or k2 failed in it: there is no more use for it
        code = self.process.wait()
        self._log.seek(0)
        return _death(error.strip() or code, self._log.read().decode(errors="replace"))


class InProcess:
    """The worker's search in this process, where k2 can be imported; a failed k2 check then ends everything."""

    def __init__(self, graph: Path) -> None:
        try:
            self._searcher = worker.Searcher(graph)
        except ImportError as error:
            raise UserError(f"--in-process needs k2 in this interpreter ({error}): leave the flag out") from None

    def search(self, scores: list[np.ndarray], options: SearchOptions) -> tuple[list[Found], float]:
        started = time.process_time()
        try:
            found = self._searcher.search(scores, options)
        except (RuntimeError, ValueError) as error:
            raise WorkerDied(f"{type(error).__name__}: {error}") from None
        return found, time.process_time() - started

    def kill(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclasses.dataclass
class Outcome:
    """What became of one utterance: ``found``, or why not."""

    found: Found | None
    reason: str = ""


class Search:
    """Searches batches; a worker that dies is replaced and its batch tried again, one utterance at a time.

    Args:
        graph: from ``prepared_graph``.
        python: the worker's interpreter; None: search in this process.
        num_pdfs: columns that score matrices must have.
    """

    def __init__(self, graph: Path, python: Path | None, num_pdfs: int) -> None:
        self.graph, self.python, self.num_pdfs = graph, python, num_pdfs
        self.engine: WorkerProcess | InProcess | None = None
        self.seconds = 0.0  # CPU seconds of search so far
        self._stopped = False

    def __call__(self, scores: list[np.ndarray], options: SearchOptions) -> list[Outcome]:
        """One outcome a matrix, in their order; an utterance is never fatal.

        Args:
            scores: log-likelihoods (T, C) float32, unscaled.

        Raises:
            UserError: no worker starts.
        """
        outcomes = [Outcome(None, complaint(matrix, self.num_pdfs)) for matrix in scores]
        good = [i for i, outcome in enumerate(outcomes) if not outcome.reason]
        if not good:
            return outcomes
        try:
            found = self._search([scores[i] for i in good], options)
        except WorkerDied:
            found = [self._alone(scores[i], options) for i in good]
        for i, outcome in zip(good, found, strict=True):
            outcomes[i] = outcome
        return outcomes

    def start(self) -> None:
        """Start the worker now (otherwise the first search does): it takes seconds to import torch and k2."""
        if self.engine is None:
            self.engine = InProcess(self.graph) if self.python is None else WorkerProcess(self.graph, self.python)

    def stop(self) -> None:
        """Have a search that goes on in another thread end with an error, soon."""
        self._stopped = True
        engine = self.engine
        if engine is not None:
            engine.kill()

    def close(self) -> None:
        engine, self.engine = self.engine, None
        if engine is not None:
            engine.close()

    def _alone(self, scores: np.ndarray, options: SearchOptions) -> Outcome:
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
            found, seconds = self.engine.search(scores, options)
        except WorkerDied:
            self.close()
            raise
        self.seconds += seconds
        lost = "no path reached the end of the graph, even with a beam 4 times as wide"
        return [Outcome(f) if f.words is not None else Outcome(None, lost) for f in found]


class Searches:
    """Searches that stay open from one network to the next: on short splits, starting k2 takes longer than using it."""

    def __init__(self) -> None:
        self._made_of: tuple[Path, Path | None, int] | None = None
        self._kept: list[Search] = []

    def __call__(self, number: int, graph: Path, python: Path | None, num_pdfs: int) -> list[Search]:
        """So many, of the arguments of ``Search``; those kept for another graph or interpreter end."""
        if self._made_of != (graph, python, num_pdfs):
            self.close()
            self._made_of = graph, python, num_pdfs
        self._kept += [Search(graph, python, num_pdfs) for _ in range(number - len(self._kept))]
        self._kept[0].start()  # beside the slow imports that follow the first time
        return self._kept[:number]

    def close(self) -> None:
        for search in self._kept:
            search.close()
        self._made_of, self._kept = None, []


def _environment() -> Mapping[str, str]:
    """One thread a worker: several workers share the cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def _death(end: int | str, log: str) -> str:
    """One line about a process that ended with a code or an error, from that and what it printed."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    checks = [line for line in lines if "Check failed" in line]
    if isinstance(end, str):
        return checks[-1] if checks else end.splitlines()[0]
    how = signal.Signals(-end).name if end < 0 else f"exit code {end}"
    telling = checks or [line for line in lines if "Error" in line] or lines
    return f"{how}; {telling[-1]}" if telling else how
