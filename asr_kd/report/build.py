"""Collects, draws and writes the report's files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.storage import atomic_open, write_json
from asr_kd.report import tables
from asr_kd.report.collect import collect, curves
from asr_kd.report.config import Config
from asr_kd.report.draw import draw, draw_utterance
from asr_kd.report.facts import facts
from asr_kd.report.page import page
from asr_kd.report.svg import standalone
from asr_kd.report.systems import Experiment, System
from asr_kd.score.bootstrap import Bootstrap


def build(config: Config, experiment: Experiment, systems: Sequence[System]) -> dict[str, Any]:
    """Fill ``config.out``; prints Table 1.

    Returns:
        Figures for the completion mark.
    """
    bootstrap = Bootstrap(config.bootstrap_by, config.replications, config.seed)
    results = collect(experiment, systems, bootstrap)
    results.facts = facts(experiment.root, systems, config.command)
    drawings = list(draw(experiment, systems, results, curves(experiment.root, systems)))
    spoken = draw_utterance(experiment, systems, results, config.utterance) if config.posteriorgram else None
    if spoken is not None:
        drawings.append(spoken)
    for drawing in drawings:
        _write(config.out / "figures" / f"{drawing.name}.svg", standalone(drawing.svg))
    write_json(config.out / "results.json", results.as_json())
    _write(config.out / "report.md", tables.markdown(results))
    _write(config.out / "index.html", page(config.title, results, drawings))
    print("\n" + tables.table_one(results).markdown() + "\n")
    for line in results.not_run:
        print(f"not run: {line}")
    print(f"report: {config.out / 'index.html'}", flush=True)
    return {"systems": len(results.rows), "figures": len(drawings), "not_run": len(results.not_run)}


def _write(path: Path, text: str) -> None:
    with atomic_open(path) as file:
        file.write(text)
