"""The report of a study: its tables and figures as report.md, index.html, and a file for each figure."""

from __future__ import annotations

import html
import platform
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

from asr_kd.common.parallel import cpu_count
from asr_kd.common.storage import atomic_open, atomic_path
from asr_kd.report.draw import Drawing
from asr_kd.report.page import document, figure_parts, note_html, table_html
from asr_kd.report.svg import PAGE, standalone
from asr_kd.report.tables import Table


class Section(NamedTuple):
    """One table under its title; the note below it may be empty."""

    title: str
    note: str
    table: Table


def write_report(
    out: Path, title: str, sections: Sequence[Section], drawings: Iterable[Drawing], command: str, intro: str = ""
) -> list[str]:
    """Write report.md, index.html and figures/NAME.svg and .png into ``out``; prints the tables.

    Args:
        command: that made what is reported; may be empty.
        intro: what it is about; may be empty.

    Returns:
        pieces of HTML: the page's body.
    """
    about = f"{date.today()}, {cpu_count()} cores, {platform.machine()}"
    text = [f"# {title}", *([intro] if intro else [])]
    text += [f"## {s.title}\n\n{s.table.markdown()}\n\n{s.note}".rstrip() for s in sections]
    with atomic_open(out / "report.md") as file:
        file.write("\n\n".join([*text, f"{about}. `{command}`" if command else about]) + "\n")
    parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="lesser">{html.escape(about)}</p>']
    parts += [f"<p>{html.escape(intro)}</p>"] if intro else []
    for section in sections:
        parts += [f"<h2>{html.escape(section.title)}</h2>", table_html(section.table, "first")]
        parts += [note_html(section.note)] if section.note else []
    drawings = list(drawings)
    for drawing in drawings:
        _write(out / "figures", drawing)
    parts += figure_parts(drawings)
    parts += ["<h2>How it was made</h2>", f"<pre>{html.escape(command)}</pre>"] if command else []
    with atomic_open(out / "index.html") as file:
        file.write(document(title, parts))
    for section in sections:
        print("\n" + section.table.markdown())
    print(f"\nreport: {out / 'index.html'}")
    return parts


def _write(folder: Path, drawing: Drawing) -> None:
    with atomic_open(folder / f"{drawing.name}.svg") as file:
        file.write(standalone(drawing.svg))
    with atomic_path(folder / f"{drawing.name}.png") as temporary:
        drawing.figure.savefig(temporary, format="png", dpi=150, facecolor=PAGE)
