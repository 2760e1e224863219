"""The report of an experiment: its sections, figures and facts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.storage import is_finished, write_json
from asr_kd.report import tables
from asr_kd.report.config import Config
from asr_kd.report.draw import draw, draw_utterance
from asr_kd.report.facts import facts
from asr_kd.report.sections import Section, write_report
from asr_kd.score.collect import Results, training_curves
from asr_kd.score.systems import System
from asr_kd.score.tables import COMPARISON_NOTES, comparisons


def build(config: Config, systems: Sequence[System], score: Path) -> dict[str, Any]:
    """Fill ``config.out``, and print Table 1.

    Args:
        systems: the systems of the experiment.
        score: folder that the score stage filled.

    Returns:
        Figures for the completion mark.
    """
    exp, gmm = config.exp, config.gmm or config.exp / "gmm"
    results = Results.load(score / "score.json")
    drawings = list(draw(config.boundaries or exp / "boundaries", systems, results, training_curves(systems, exp)))
    if config.posteriorgram:
        spoken = draw_utterance(exp, gmm, systems, results, config.utterance)
        drawings += [spoken] if spoken is not None else []
    known = facts(exp, systems)
    sections = [Section("Table 1", tables.NOTES, tables.table_one(results), tables.headlines(results))]
    if bundles := sorted(filter(is_finished, (exp / "bundle").glob("*"))):
        sections.append(Section("What is shipped", tables.BUNDLE_NOTES, tables.bundles(bundles)))
    write_report(config.out, config.title, sections, drawings, config.command, details=_details(results, known))
    write_json(config.out / "results.json", {**results.as_json(), "command": config.command, **known})
    for line in results.not_run:
        print(f"not run: {line}", flush=True)
    return {"systems": len(results.rows), "figures": len(drawings), "not_run": len(results.not_run)}


def _details(results: Results, known: dict[str, Any]) -> list[Section]:
    """What follows the figures."""
    details = []
    if results.comparisons:
        details.append(Section("Paired comparisons", COMPARISON_NOTES, comparisons(results)))
    if results.not_run:
        details.append(Section("Not run", points=results.not_run))
    if known["corpus"]:
        graph = f"Decoding graph: {tables.plain(known['graph'])}." if known["graph"] else ""
        details.append(Section("Corpus", graph, tables.corpus(known["corpus"])))
    details.append(Section("Stages", table=tables.stages(known["stages"])))
    return details
