"""Writing of a report: its tables and figures as report.md, index.html, and files for each figure."""

import html
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from asr_kd.common.storage import atomic_open, atomic_path
from asr_kd.report.draw import Drawing
from asr_kd.report.facts import machine
from asr_kd.report.page import document, figure_parts, note_html, points_html, table_html
from asr_kd.report.svg import PAGE, standalone
from asr_kd.score.tables import Table


class Section(NamedTuple):
    """A title with sentences, a table and a note below it; each of these may be absent."""

    title: str
    note: str = ""
    table: Table | None = None
    points: Sequence[str] = ()

    def markdown(self) -> str:
        points = "\n".join(f"- {line}" for line in self.points)
        table = self.table.markdown() if self.table is not None else ""
        return "\n\n".join(part for part in (f"## {self.title}", points, table, self.note) if part)

    def html(self) -> list[str]:
        table = table_html(self.table, "first") if self.table is not None else ""
        note = note_html(self.note) if self.note else ""
        return [f"<h2>{html.escape(self.title)}</h2>", points_html(self.points), table, note]


def write_report(
    out: Path, title: str, sections: Sequence[Section], drawings: Iterable[Drawing], command: str, intro: str = "",
    details: Sequence[Section] = (),
) -> list[str]:  # fmt: skip
    """Write report.md, index.html and figures/NAME.svg and .png into ``out``; print the tables.

    Args:
        sections: what comes before the figures.
        command: the command that made what is reported; may be empty.
        intro: what the report is about; may be empty.
        details: sections after the figures, which are not printed.

    Returns:
        The body of the page, as pieces of HTML.
    """
    made = f"{date.today()}, {machine()}."
    text = [f"# {title}", intro, *(section.markdown() for section in (*sections, *details))]
    text += [made, f"```bash\n{command}\n```" if command else ""]
    with atomic_open(out / "report.md") as file:
        file.write("\n\n".join(part for part in text if part) + "\n")
    drawings = list(drawings)
    for drawing in drawings:
        _write(out / "figures", drawing)
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="lesser">{html.escape(made)}</p>']
    body += [f"<p>{html.escape(intro)}</p>"] if intro else []
    body += [part for section in sections for part in section.html()]
    body += figure_parts(drawings)
    body += [part for section in details for part in section.html()]
    body += ["<h2>Command</h2>", f"<pre>{html.escape(command)}</pre>"] if command else []
    with atomic_open(out / "index.html") as file:
        file.write(document(title, body))
    for section in sections:
        if section.table is not None:
            print("\n" + section.table.markdown())
    print(f"\nreport: {out / 'index.html'}", flush=True)
    return body


def _write(folder: Path, drawing: Drawing) -> None:
    with atomic_open(folder / f"{drawing.name}.svg") as file:
        file.write(standalone(drawing.svg))
    with atomic_path(folder / f"{drawing.name}.png") as temporary:
        drawing.figure.savefig(temporary, format="png", dpi=150, facecolor=PAGE)
