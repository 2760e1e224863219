"""Processes that this one waits for and that somebody has stopped (Ctrl-Z, ``kill -STOP``), on Linux."""

from __future__ import annotations

import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)
_told: set[int] = set()


def stopped_processes() -> list[int]:
    """The descendants of this process that are stopped, sorted."""
    parents: dict[int, int] = {}
    stopped: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name, in brackets, may contain blanks and brackets.
            state, parent, *_ = path.read_text(errors="replace").rpartition(")")[2].split()
        except (OSError, ValueError):  # it has just ended
            continue
        process = int(path.parent.name)
        parents[process] = int(parent)
        stopped += [process] * (state in "Tt")
    return sorted(process for process in stopped if _descends(process, parents))


def _descends(process: int, parents: dict[int, int]) -> bool:
    while process in parents:
        process = parents[process]
        if process == os.getpid():
            return True
    return False


def tell_stopped(title: str) -> None:
    """Log once which process ``title`` waits for because it is stopped: whoever stopped it decides how long."""
    for process in stopped_processes():
        if process not in _told:
            _told.add(process)
            log.warning(
                "%s waits for process %d, which is stopped: `kill -CONT %d` lets it go on, and after `kill -KILL %d` "
                "the same command resumes", title, process, process, process,
            )  # fmt: skip
