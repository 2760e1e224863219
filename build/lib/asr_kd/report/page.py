"""HTML of a report: one page without scripts or links, light and dark, readable on a phone."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from asr_kd.report.draw import Drawing
from asr_kd.report.svg import FONT, SCHEMES
from asr_kd.score.tables import Table

CSS = (
    SCHEMES
    + f"""
* {{ box-sizing: border-box }}
html {{ background: var(--page); color: var(--ink); font: 16px/1.55 {FONT}; -webkit-text-size-adjust: 100% }}
body {{ max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 4rem }}
h1 {{ font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; letter-spacing: -.01em }}
h2 {{ font-size: 1.15rem; line-height: 1.3; margin: 3rem 0 .75rem }}
p, li {{ max-width: 44rem }}
.lesser, figcaption, .note {{ color: var(--muted); font-size: .875rem; line-height: 1.45 }}
.points {{ padding-left: 1.1rem; margin: 1.25rem 0 }}
.points li {{ margin: .3rem 0 }}
.scroll {{ overflow-x: auto }}
small {{ display: block; color: var(--muted); font-size: .8rem; line-height: 1.3 }}
table {{ border-collapse: separate; border-spacing: 0; min-width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums }}
th, td {{ padding: .45rem .7rem; text-align: right; vertical-align: baseline; border-bottom: 1px solid var(--hair) }}
td {{ white-space: nowrap }}
th {{ color: var(--muted); font-weight: 500; font-size: .8rem; line-height: 1.25; vertical-align: bottom;
  border-bottom: 1.5px solid var(--ink) }}
.words {{ text-align: left }}
td.words {{ white-space: normal }}
tr > :first-child {{ padding-left: 0 }}
.first tr > :first-child {{ position: sticky; left: 0; background: var(--page); min-width: 8rem }}
.figures {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 2rem 2.5rem }}
figure {{ margin: 0; min-width: 0 }}
figure svg {{ display: block; width: 100%; height: auto; max-width: 32rem }}
figure.wide {{ grid-column: 1 / -1 }}
figure.wide svg {{ min-width: 44rem; max-width: none }}
figcaption {{ margin-top: .5rem; max-width: 44rem }}
pre {{ overflow-x: auto; padding: .8rem 1rem; border: 1px solid var(--hair); border-radius: 6px; font-size: .85rem }}
@media (max-width: 40rem) {{ html {{ font-size: 15px }} body {{ padding-top: 1.25rem }} h2 {{ margin-top: 2.25rem }} }}
"""
)


def document(title: str, parts: Iterable[str]) -> str:
    """A whole page around pieces of HTML; empty pieces are left out."""
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def table_html(table: Table, kind: str = "") -> str:
    """A table that scrolls sideways on a narrow screen; with kind "first", its first column stays."""

    def row(cells: Sequence[str], tag: str) -> str:
        columns = []
        for place, cell in enumerate(cells):
            words = ' class="words"' if place in table.words else ""
            value, space, rest = cell.partition(" ") if re.match(r"\S+ [±(]\S*\d", cell) else (cell, "", "")
            lesser = f"<small>{html.escape(rest.strip('()'))}</small>" if space else ""
            columns.append(f"<{tag}{words}>{html.escape(value)}{lesser}</{tag}>")
        return f"<tr>{''.join(columns)}</tr>"

    head, body = row(table.header, "th"), "\n".join(row(cells, "td") for cells in table.rows)
    return f'<div class="scroll"><table class="{kind}"><thead>{head}</thead>\n<tbody>{body}</tbody></table></div>'


def figure_parts(drawings: Iterable[Drawing]) -> Iterator[str]:
    """Each group's heading and its figures."""
    for group, members in groupby(drawings, key=lambda drawing: drawing.group):
        yield f"<h2>{html.escape(group)}</h2>"
        yield _figures_html(members)


def _figures_html(drawings: Iterable[Drawing]) -> str:
    """Figures, as many side by side as fit."""
    shown = []
    for drawing in drawings:
        svg = f'<div class="scroll">{drawing.svg}</div>' if drawing.wide else drawing.svg
        caption = f"<figcaption>{_text(drawing.caption)}</figcaption>"
        shown.append(f'<figure class="{"wide" if drawing.wide else ""}">{svg}{caption}</figure>')
    return f'<div class="figures">{"".join(shown)}</div>'


def points_html(lines: Sequence[str]) -> str:
    """Sentences as a list."""
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f'<ul class="points">{items}</ul>' if lines else ""


def note_html(text: str) -> str:
    """A paragraph in smaller type."""
    return f'<p class="note">{_text(text)}</p>'


def _text(text: str) -> str:
    """Escaped text, in which no line breaks between a number and its per cent sign."""
    return html.escape(text).replace(" %", "&nbsp;%")
