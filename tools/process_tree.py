"""What a command takes with all its processes: seconds of cores, and memory."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36  # of sys/prctl.h
SAMPLE_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a command took.

    Attributes:
        cpu: seconds that cores have computed.
        wall: seconds until its last process had ended.
        memory: bytes of all its processes together at their peak; pages that they share count once.
        largest: bytes of its largest process at its peak.
    """

    cpu: float
    wall: float
    memory: int
    largest: int


def run_measured(command: Sequence[str]) -> Usage:
    """Run a command, and wait for all its processes; what it prints is shown if it fails.

    Raises:
        SystemExit: it failed.
    """
    # A server of processes outlives the command: it becomes a child of this process, which waits for it, too.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started, over, peaks, others = time.perf_counter(), threading.Event(), [0, 0], set(_children())
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        watcher = threading.Thread(target=_watch, args=(peaks, over, others))
        watcher.start()
        cpu, status = 0.0, 0
        while own := [child for child in _children() if child not in others]:
            ended, code, usage = os.wait4(own[0].pid, 0)
            cpu += usage.ru_utime + usage.ru_stime
            status = code if ended == process.pid else status
        process.returncode = status  # subprocess need not wait for it
        over.set()
        watcher.join()
        if status:
            log.seek(0)
            raise SystemExit(log.read())
    return Usage(cpu, time.perf_counter() - started, *peaks)


def _children() -> list[psutil.Process]:
    return psutil.Process().children()


def _watch(peaks: list[int], over: threading.Event, others: set[psutil.Process]) -> None:
    """Keep the peaks of the memory of this process's children but for ``others``: of all, and of the largest."""
    pause = SAMPLE_SECONDS
    while not over.wait(pause):
        began = time.perf_counter()
        found = [_memory(one.pid) for child in _children() if child not in others for one in _with_descendants(child)]
        now = sum(share for share, _ in found), max((resident for _, resident in found), default=0)
        peaks[:] = map(max, peaks, now)
        # The kernel counts a process's pages one by one: it must not take more than a twentieth of a core from it.
        pause = max(SAMPLE_SECONDS, 20 * (time.perf_counter() - began))


def _with_descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:  # it has ended
        return []


def _memory(pid: int) -> tuple[int, int]:
    """Bytes of a process: its share of its pages, and all its pages."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:  # it has ended
        return 0, 0
    sizes = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
    return sizes["Pss"], sizes["Rss"]
