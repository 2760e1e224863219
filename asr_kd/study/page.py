"""The page of a study, and one page of all studies of an experiment."""

from __future__ import annotations

import html
from pathlib import Path

from asr_kd.common.storage import atomic_open, write_json
from asr_kd.report.collect import collect, curves
from asr_kd.report.page import document
from asr_kd.report.sections import write_report
from asr_kd.report.systems import Experiment, System
from asr_kd.score.bootstrap import Bootstrap
from asr_kd.study.format import Names, Study
from asr_kd.study.steps import run_folder
from asr_kd.study.views import Views

BODY = "body.html"


def report(study: Study, exp: Path, out: Path, command: str) -> None:
    """Write OUT/report with the study's tables and figures, and EXP/studies/index.html with those of all studies."""
    systems = _systems(study, Names(exp, out))
    experiment = Experiment(exp, study.data["cuts"], study.data["features"], exp / "boundaries")
    results = collect(experiment, systems, Bootstrap(), study.gain)
    views = Views(study, results, systems, lambda some: curves(exp, some))
    drawings = [view.named(f"{out.name}-{view.name}") for view in views.drawings()]
    parts = write_report(out / "report", study.title, list(views.sections()), drawings, command, study.intro)
    write_json(out / "report" / "results.json", results.as_json())
    with atomic_open(out / "report" / BODY) as file:
        file.write("\n".join(parts))
    studies = sorted(path.parent.parent for path in out.parent.glob(f"*/report/{BODY}"))
    listed = "".join(f'<li><a href="#{s.name}">{html.escape(s.name.replace("_", " "))}</a></li>' for s in studies)
    bodies = [f'<section id="{s.name}">{(s / "report" / BODY).read_text(encoding="utf-8")}</section>' for s in studies]
    with atomic_open(out.parent / "index.html") as file:
        file.write(document("Studies", [f"<ul>{listed}</ul>", *bodies]))
    print(f"all studies: {out.parent / 'index.html'}")


def _systems(study: Study, names: Names) -> list[System]:
    """The systems as the report knows them."""
    found = []
    for system in study.systems:
        numbers = range(len(system.runs))
        # An ensemble's members are no seeds of it: its size and figures come from where it was measured.
        networks = [members[0] for members in system.runs if system.kind != "ensemble"]
        decoding = [run_folder("decode", study, names, system, n) for n in numbers[: system.decoded]]
        measuring = [run_folder("accuracy", study, names, system, n) for n in numbers]
        models, decoded, measured = (
            tuple(str(folder.relative_to(names.exp)) for folder in some) for some in (networks, decoding, measuring)
        )
        found.append(System(system.name, system.label, system.kind, models, decoded, measured, system.twin))
    return found
