"""Facts about an experiment: its corpus, graph, stages with their settings, and the machine."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.parallel import cpu_count
from asr_kd.common.storage import MARK, is_finished, read_json
from asr_kd.score.systems import System

GRAPH_SIZES = ("num_pdfs", "states", "arcs")


def facts(exp: Path, systems: Sequence[System]) -> dict[str, Any]:
    """JSON-ready description; what the experiment lacks is absent.

    Args:
        exp: the experiment's folder.
        systems: systems whose model and decoded folders are described too.
    """
    summary, graph = exp / "data" / "summary.json", exp / "graph" / "graph.json"
    return {
        "machine": machine(),
        "corpus": read_json(summary) if summary.is_file() else {},
        "graph": {k: v for k, v in read_json(graph).items() if k in GRAPH_SIZES} if graph.is_file() else {},
        "stages": [_stage(name, folders) for name, folders in _folders(exp, systems)],
    }


def machine() -> str:
    """Number of cores, and the processor's name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.machine()
    return f"{cpu_count()} cores, {name}"


def _folders(exp: Path, systems: Sequence[System]) -> list[tuple[str, list[Path]]]:
    """Finished folders by name, seeds together (teachers/seed-N), in the order in which they were finished."""
    of_systems = [f for s in systems for run in s.runs for f in (*run.models, run.decode) if f is not None]
    folders = [path for path in dict.fromkeys([*exp.iterdir(), *of_systems]) if is_finished(path)]
    groups: dict[str, list[Path]] = {}
    for folder in sorted(folders, key=lambda folder: (folder / MARK).stat().st_mtime_ns):
        name = str(folder.relative_to(exp))
        numbered = folder.parent != exp and name.rstrip("0123456789").endswith("-")
        groups.setdefault(name.rstrip("0123456789") + "N" if numbered else name, []).append(folder)
    return [(name, folders) for name, folders in groups.items() if name != "report"]


def _stage(name: str, folders: Sequence[Path]) -> dict[str, Any]:
    """Settings and figures of the first folder, mean seconds of all."""
    marks = [read_json(folder / MARK) for folder in folders]
    return {
        "folder": name,
        "stage": marks[0]["stage"],
        "runs": len(marks),
        "seconds": round(sum(mark["figures"]["seconds"] for mark in marks) / len(marks), 1),
        "settings": marks[0]["settings"],
        "figures": {k: v for k, v in marks[0]["figures"].items() if k != "seconds"},
    }
