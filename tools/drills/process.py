"""One stage in a process of its own: forked from a process that has imported everything, and watched."""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asr_kd
from asr_kd.common import cli
from asr_kd.common.parallel import Workers
from asr_kd.lang.lexicon import cmu_dictionary

MAX_SECONDS = 60.0
MAX_BYTES = 2 << 30
#: Packages that stages import as they run; a forked process finds them loaded.
PRELOADED = ("lhotse", "scipy.signal", "soundfile", "kaldi_hmm_gmm", "kaldifst", "kaldilm", "matplotlib.pyplot", "PIL")


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: exit status; negative: the number of the signal that ended it.
        stdout, stderr: what it printed.
        seconds: wall time.
        peak: largest resident memory in bytes, of the process or of one that it started and waited for.
        stopped: "", or why it was killed: "hang" or "memory".
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    peak: int
    stopped: str = ""

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def refused(self) -> bool:
        """Whether it ended with a sentence about an error, as a stage should."""
        return self.code in (1, 2) and "error" in self.stderr.lower() and "Traceback" not in self.output


def preload() -> None:
    """Import every module of asr_kd and what the stages use, so that forked processes start at once."""
    for name in PRELOADED:
        importlib.import_module(name)
    for module in pkgutil.walk_packages(asr_kd.__path__, "asr_kd."):
        importlib.import_module(module.name)
    cmu_dictionary()


def run_stage(module: str, flags: Sequence[str], folder: Path, seconds: float = MAX_SECONDS) -> Ended:
    """Run ``python -m asr_kd.MODULE FLAGS`` in a forked process, with its jobs in the same process.

    Args:
        folder: for its output and its temporary files; it is the working folder too.
        seconds: after these, and with more than ``MAX_BYTES`` of memory, it is killed with all that it started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _be_stage(module, flags, folder, temporary)
    code, peak, stopped = _watch(pid, started + seconds)
    texts = [(folder / name).read_text(encoding="utf-8", errors="replace") for name in ("stdout", "stderr")]
    return Ended(code, texts[0], texts[1], time.monotonic() - started, peak, stopped)


def _be_stage(module: str, flags: Sequence[str], folder: Path, temporary: Path) -> None:
    """Be the stage's process; does not return."""
    os.setsid()
    os.chdir(folder)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644), descriptor)
    # New objects: those of the parent may hold text that it has not written yet.
    sys.stdout, sys.stderr = (os.fdopen(d, "w", encoding="utf-8", errors="backslashreplace") for d in (1, 2))
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    sys.argv = [f"asr_kd.{module}"]
    Workers.executor = lambda *_: ThreadPoolExecutor(1)  # type: ignore[method-assign]
    code: Any = 0
    try:
        config = importlib.import_module(f"asr_kd.{module}.config").Config
        main = importlib.import_module(f"asr_kd.{module}.__main__").main
        cli.run(config, main, flags, "--and" if module in ("train", "decode") else "")
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def _watch(pid: int, deadline: float) -> tuple[int, int, str]:
    """Wait for a process, the head of its group: exit status, peak memory, why it was killed."""
    stopped, pause = "", 0.005
    while True:
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if not stopped and (time.monotonic() > deadline or _resident(pid) > MAX_BYTES):
            stopped = "hang" if time.monotonic() > deadline else "memory"
            os.killpg(pid, signal.SIGKILL)
        time.sleep(pause)
        pause = min(0.1, pause * 1.5)
    with contextlib.suppress(ProcessLookupError):  # what it started and left behind
        os.killpg(pid, signal.SIGKILL)
    peak = usage.ru_maxrss * 1024
    return os.waitstatus_to_exitcode(status), peak, stopped or ("memory" if peak > MAX_BYTES else "")


def _resident(pid: int) -> int:
    """Resident bytes of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
