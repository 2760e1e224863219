"""Stages with half of the address space that they need: a sentence, and the same results with enough of it."""

from __future__ import annotations

import resource
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from drills.inputs import append_row, read_rows
from drills.place import Place
from drills.workers import FANOUTS, Command

MAX_SECONDS = 120.0
#: Shares of the need at which the limit is set.
SHARES = (0.5, 0.75)


def need(command: Command) -> int:
    """Run a stage: the largest address space in bytes of any of its processes.

    Raises:
        RuntimeError: it failed.
    """
    process, peaks = command.start(), [0]
    while process.poll() is None:
        for pid in [process.pid, *_children(process.pid)]:
            peaks.append(_peak(pid))
        time.sleep(0.02)
    if process.returncode:
        raise RuntimeError(f"{command.stage} fails undisturbed: {command.output[-2000:]}")
    return max(peaks)


def _children(pid: int) -> list[int]:
    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def _peak(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmPeak:")), 0)


def limited(command: Command, limit: int) -> subprocess.Popen[bytes]:
    """Start a stage; each of its processes has a limit of address space."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        return command.start()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def run_all(place: Place, results: Path, stages: Sequence[str] = tuple(FANOUTS)) -> list[dict[str, Any]]:
    """Run every stage with less memory than it needs, then with enough; one row per stage."""
    done = {row["stage"]: row for row in read_rows(results)}
    for stage in stages:
        if stage in done:
            continue
        command = Command(place, stage, ("--jobs", "1"))
        shutil.rmtree(place.work, ignore_errors=True)
        needed = need(command)
        expected = command.results()
        row: dict[str, Any] = {"stage": stage, "needs MiB": needed >> 20}
        for share in SHARES:
            row[f"{share:.0%}"] = _outcome(command, int(share * needed), expected)
        append_row(results, row)
        done[stage] = row
        print(f"memory of {stage}: {row}", flush=True)
    return [done[stage] for stage in stages]


def _outcome(command: Command, limit: int, expected: dict[str, bytes]) -> str:
    shutil.rmtree(command.place.work, ignore_errors=True)
    process = limited(command, limit)
    try:
        status = process.wait(MAX_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in [*_children(process.pid), process.pid]:
            psutil.Process(pid).kill()
        return "hang"
    if status and not command.sentence:
        return f"no sentence (exit status {status}): {command.output[-1500:]}"
    if status and command.start().wait():
        return f"failed again: {command.output[-1500:]}"
    same = command.results() == expected
    return f"{'sentence, then ' if status else ''}{'same' if same else 'other results'}"
