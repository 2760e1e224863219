"""What the experiment was made of: corpus, sizes, stages with their settings, the machine."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.parallel import cpu_count
from asr_kd.common.storage import MARK, read_json
from asr_kd.report.systems import System, find

#: Stage folders that every experiment has, in the order in which they are made.
STAGES = ("data", "features", "lang", "gmm", "graph", "soft_targets")


def facts(exp: Path, systems: Sequence[System], command: str) -> dict[str, Any]:
    """JSON-ready description; what is absent from the experiment is absent here.

    Args:
        exp: the experiment folder.
        systems: whose model and decoded folders are described too.
        command: the command line that made the experiment, "" if not known.
    """
    summary = exp / "data" / "summary.json"
    graph = exp / "graph" / "graph.json"
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{cpu_count()} cores, {processor()}",
        "command": command,
        "corpus": read_json(summary) if summary.is_file() else {},
        "graph": read_json(graph) if graph.is_file() else {},
        "stages": [entry for name, folders in _folders(exp, systems) if (entry := _stage(name, folders))],
    }


def _folders(exp: Path, systems: Sequence[System]) -> list[tuple[str, list[Path]]]:
    common = [(name, [exp / name]) for name in STAGES if (exp / name / MARK).is_file()]
    groups: dict[str, list[Path]] = {}
    # Each folder once: an ensemble's networks are the single ones too.
    for folder in dict.fromkeys(f for system in systems for f in find(exp, (*system.models, *system.decode))[0]):
        name = str(folder.relative_to(exp))
        alone = folder.parent == exp or not name.rstrip("0123456789").endswith("-")
        groups.setdefault(name if alone else name.rstrip("0123456789") + "N", []).append(folder)
    return common + [(name, folders) for name, folders in groups.items() if name not in STAGES]


def _stage(name: str, folders: Sequence[Path]) -> dict[str, Any] | None:
    """One line: settings of the first folder, mean seconds of all that are finished."""
    marks = [read_json(folder / MARK) for folder in folders]
    done = [mark for mark in marks if mark["status"] == "done"]
    if not done:
        return None
    return {
        "folder": name,
        "stage": done[0]["stage"],
        "runs": len(done),
        "seconds": round(sum(mark["figures"]["seconds"] for mark in done) / len(done), 1),
        "settings": done[0]["settings"],
        "figures": {k: v for k, v in done[0]["figures"].items() if k != "seconds"},
    }


def processor() -> str:
    """The processor's name where Linux tells it, else the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()
