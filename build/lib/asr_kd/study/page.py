"""The page of a study, and one page of all studies of an experiment."""

import html

from asr_kd.common.storage import atomic_open, verify, write_json
from asr_kd.report.page import document
from asr_kd.report.sections import write_report
from asr_kd.score.bootstrap import Bootstrap
from asr_kd.score.collect import collect_experiment, training_curves
from asr_kd.score.systems import Names
from asr_kd.study.format import Study
from asr_kd.study.views import Views

BODY = "body.html"


def report(study: Study, names: Names, command: str) -> None:
    """Write OUT/report with the study's tables and figures, and EXP/studies/index.html with those of all studies."""
    out, systems = names.out, study.systems.systems
    results = collect_experiment(systems, names.exp, names.exp / "features", Bootstrap(), study.gain)
    views = Views(study, results, lambda some: training_curves(some, names.exp))
    drawings = [drawing.named(f"{out.name}-{drawing.name}") for drawing in views.drawings()]
    body = write_report(out / "report", study.title, list(views.sections()), drawings, command, study.intro)
    write_json(out / "report" / "results.json", results.as_json())
    with atomic_open(out / "report" / BODY) as file:
        file.write("\n".join(body))
    studies = sorted(path.parent.parent for path in out.parent.glob(f"*/report/{BODY}"))
    links = "".join(f'<li><a href="#{s.name}">{html.escape(s.name.replace("_", " "))}</a></li>' for s in studies)
    texts = {s.name: verify(s / "report" / BODY).read_text(encoding="utf-8") for s in studies}
    bodies = [f'<section id="{name}">{text}</section>' for name, text in texts.items()]
    with atomic_open(out.parent / "index.html") as file:
        file.write(document("Studies", [f"<ul>{links}</ul>", *bodies]))
    print(f"all studies: {out.parent / 'index.html'}")
