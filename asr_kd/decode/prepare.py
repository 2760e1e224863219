"""What a search needs before it starts: an interpreter that has k2, and the graph converted for k2."""

import errno
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import asr_kd
from asr_kd.common.errors import UserError
from asr_kd.common.storage import path_fingerprint, verify
from asr_kd.decode import worker
from asr_kd.lang.openfst import read_openfst

#: Environment variable with the path of the interpreter that has k2.
K2_PYTHON_VARIABLE = "ASR_KD_K2_PYTHON"


def find_k2_python(path: Path | None = None) -> Path:
    """The interpreter for search workers: ``path``, else $ASR_KD_K2_PYTHON, else .venv-k2 next to the package's
    folder (where tools/setup.sh creates it), else this interpreter if it has k2.

    Raises:
        UserError: none of them exists.
    """
    variable = os.environ.get(K2_PYTHON_VARIABLE)
    chosen = path or (Path(variable) if variable else None)
    if chosen is not None:
        if not os.access(chosen, os.X_OK):
            origin = "--k2-python" if path else f"the variable {K2_PYTHON_VARIABLE}"
            raise UserError(f"{chosen} (from {origin}) is not a program: give the Python interpreter that has k2")
        return chosen
    default = Path(asr_kd.__file__).resolve().parents[1] / ".venv-k2" / "bin" / "python"
    if default.exists():
        return default
    if importlib.util.find_spec("k2") is not None:
        return Path(sys.executable)
    raise UserError(
        "no interpreter has k2: run tools/setup.sh, or give an interpreter by --k2-python PATH or the variable "
        f"{K2_PYTHON_VARIABLE}"
    )


def prepared_graph(graph: Path, python: Path | None, cache: Path | None = None) -> Path:
    """The folder with ``graph``/HCLG.fst as arrays for k2; the graph is converted if that folder does not exist yet.

    Args:
        graph: folder of the graph stage.
        python: the interpreter that converts it; None: this one.
        cache: folder of prepared graphs, each named by its fingerprint; default: ``graph``.k2 next to ``graph``.

    Raises:
        UserError: HCLG.fst is missing or damaged, or k2 does not work in that interpreter.
    """
    source = graph / "HCLG.fst"
    cache = cache or graph.resolve().with_name(graph.resolve().name + ".k2")
    folder = cache / f"{path_fingerprint(source)}-{worker.GRAPH_FORMAT}"
    verify(source)
    if folder.is_dir():
        return folder
    if not source.is_file():
        raise UserError(f"{source} is missing: run python -m asr_kd.hmm.graph first")
    try:
        arrays = read_openfst(source)
    except ValueError as error:
        raise UserError(
            f"{source} could not be prepared for k2 ({error}): run python -m asr_kd.hmm.graph again"
        ) from None
    if python is None:
        worker.prepare(arrays, folder)
    else:
        _prepare_under(python, arrays, folder)
    for old in cache.iterdir():  # graphs are large: keep only the newest
        if old != folder and not old.name.startswith("."):
            shutil.rmtree(old, ignore_errors=True)
    return folder


def _prepare_under(python: Path, arrays: Sequence[np.ndarray], folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder.parent) as request:
        worker.send(request, {}, list(arrays))
        request.seek(0)
        command = [str(python), worker.__file__, "prepare", str(folder)]
        done = subprocess.run(
            command, env=worker_environment(), stdin=request, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    if done.returncode != 0:
        if os.strerror(errno.ENOSPC).encode() in done.stderr:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        raise UserError(
            f"the graph could not be prepared for k2 under {python} "
            f"({exit_reason(done.returncode, done.stderr.decode(errors='replace'))}): "
            "if it is damaged, run python -m asr_kd.hmm.graph again"
        )


def worker_environment() -> Mapping[str, str]:
    """Environment variables of a worker: one thread each, since several workers share the cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def exit_reason(end: int | str, log: str) -> str:
    """One line that explains why a process ended.

    Args:
        end: its exit code, or the error that it reported.
        log: what it printed.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    checks = [line for line in lines if "Check failed" in line]
    if isinstance(end, str):
        return checks[-1] if checks else end.splitlines()[0]
    status = signal.Signals(-end).name if end < 0 else f"exit code {end}"
    relevant = checks or [line for line in lines if "Error" in line] or lines
    return f"{status}; {relevant[-1]}" if relevant else status
