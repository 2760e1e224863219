"""``python -m asr_kd.specialists.report``: the paper's tables 3 and 4, what became of the students, and figures."""

from __future__ import annotations

import dataclasses
import html
import platform
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr_kd.cli import run
from asr_kd.parallel import cpu_count
from asr_kd.storage import MARK, Stage, atomic_open, read_json

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from asr_kd.report.tables import Table

TITLE = "Specialists, and one network distilled from them"


@dataclasses.dataclass
class Config:
    """Write report.md, index.html and figures of evaluations."""

    results: tuple[Path, ...]
    """Folders that asr_kd.specialists.evaluate filled; the first one has the figures."""
    clusters: Path
    """Folder that asr_kd.specialists.assign filled."""
    specialists: Path
    """Folder that asr_kd.specialists.train filled."""
    out: Path
    """Folder of the report."""
    command: str = ""
    """Command that made it all, for the report."""


def main(config: Config) -> None:
    marks = sorted(config.specialists.glob("specialist-*"))
    stage = Stage("report", config.out, {"command": config.command}, [*config.results, config.clusters, *marks])
    if not stage.begin():
        return
    found = list(tables(config))
    about = f"{date.today()}, {cpu_count()} cores, {platform.machine()}"
    with atomic_open(config.out / "report.md") as file:
        parts = [f"# {TITLE}", *(f"## {title}\n\n{table.markdown()}\n\n{note}" for title, note, table in found)]
        file.write("\n\n".join([*parts, f"{about}. `{config.command}`"]) + "\n")
    _page(config, found, about)
    for _, _, table in found:
        print("\n" + table.markdown())
    print(f"\nreport: {config.out / 'index.html'}")
    stage.finish()


def tables(config: Config) -> Iterator[tuple[str, str, Table]]:
    """Title, note and table."""
    from asr_kd.report.tables import Table, signed

    results = [(folder.name.removeprefix("results-"), read_json(folder / "results.json")) for folder in config.results]
    header = ["system", "right, %", "errors", "errors against the generalist", "p (McNemar)"]
    yield "Right answers", NOTE, Table(header, list(_systems(config)))
    header = ["specialists that cover the class", "examples", "generalist right", "with specialists", "relative change"]
    for name, found in results:
        rows = [
            [
                f"{row['specialists']}", f"{row['examples']:,}", f"{row['general']:,}", f"{row['combined']:,}",
                signed(100 * (row["combined"] / max(1, row["general"]) - 1)) + " %",
            ]
            for row in found["by_specialists_covering"]
        ]  # fmt: skip
        yield f"By how many cover the class ({name}; the paper's table 4)", "", Table(header, rows)
    header = ["specialists", "examples of their classes", "generalist right, %", "specialist right, %"]
    rows = []
    for name, found in results:
        examples, general, special = (sum(row[i] for row in found["conditional"]) for i in range(3))
        rows.append([name, f"{examples:,}", f"{100 * general / examples:.2f}", f"{100 * special / examples:.2f}"])
    note = "When only a specialist's classes may be answered. The paper: 43.1 % → 45.9 %."
    yield "Conditional on the specialist's classes (the paper's table 3)", note, Table(header, rows)
    header = ["specialist", "classes", "examples an epoch", "seconds", "peak memory, MB", "some of its classes"]
    names = read_json(config.clusters / "clusters.json")["names"]
    rows = []
    for folder, classes in zip(sorted(config.specialists.glob("specialist-*")), names, strict=True):
        figures = read_json(folder / MARK)["figures"]
        cells = [f"{figures[key]:,}" for key in ("classes", "examples", "seconds", "peak_mb")]
        rows.append([folder.name.removeprefix("specialist-"), *cells, ", ".join(classes[:8])])
    yield "Specialists", "", Table(header, rows, frozenset({0, 5}))


NOTE = "p: of as many differences or more by chance, in an exact test of the examples that one of the two has right."


def _systems(config: Config) -> Iterator[list[str]]:
    import numpy as np

    from asr_kd.report.tables import signed

    seen: set[str] = set()
    for folder in config.results:
        right = np.load(folder / "right.npy", allow_pickle=False)
        errors = (~right).sum(1)
        for name, row, wrong in zip(read_json(folder / "results.json")["systems"], right, errors, strict=True):
            label = name if "+" not in name else f"generalist + {folder.name.removeprefix('results-')}"
            if label not in seen:
                seen.add(label)
                change = signed(100 * (wrong / errors[0] - 1)) + " %"
                against = ["–", "–"] if label == "generalist" else [change, f"{_mcnemar(right[0], row):.2g}"]
                yield [label, f"{100 * row.mean():.2f}", f"{wrong:,}", *against]


def _mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    from scipy.stats import binomtest

    better, worse = int((other & ~one).sum()), int((one & ~other).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def _page(config: Config, found: list[tuple[str, str, Table]], about: str) -> None:
    from asr_kd.report.draw import Drawing
    from asr_kd.report.page import document, figures_html, note_html, table_html
    from asr_kd.report.svg import render, standalone

    drawn = []
    for name, caption, figure in _figures(config):
        svg = render(figure, name)
        drawn.append(Drawing(name, "Figures", caption, svg))
        with atomic_open(config.out / "figures" / f"{name}.svg") as file:
            file.write(standalone(svg))
    parts = [f"<h1>{html.escape(TITLE)}</h1>", f'<p class="lesser">{html.escape(about)}</p>']
    for title, note, table in found:
        parts += [f"<h2>{html.escape(title)}</h2>", table_html(table, "first"), note_html(note) if note else ""]
    parts += ["<h2>Figures</h2>", figures_html(drawn)]
    parts += ["<h2>How it was made</h2>", f"<pre>{html.escape(config.command)}</pre>"] if config.command else []
    with atomic_open(config.out / "index.html") as file:
        file.write(document(TITLE, parts))


def _figures(config: Config) -> Iterator[tuple[str, str, Figure]]:
    import numpy as np

    from asr_kd.report.figures import Series, line_plot
    from asr_kd.report.svg import SERIES
    from asr_kd.specialists.figures import likeness_plot

    lines = []
    for place, folder in enumerate(config.results):
        found: dict[str, Any] = read_json(folder / "results.json")
        right = [100 * count / found["examples"] for count in found["curve"].values()]
        numbers = [int(number) for number in found["curve"]]
        lines.append(Series(numbers, right, SERIES[1 + place], folder.name.removeprefix("results-")))
    yield (
        "curve",
        "Right answers with the first so many specialists.",
        line_plot(lines, "Accuracy against specialists", "specialists", "right, %"),
    )
    groups = read_json(config.clusters / "clusters.json")["clusters"]
    likeness = np.load(config.clusters / "likeness.npy", allow_pickle=False)
    caption = "How alike the generalist finds any two classes, as correlations, ordered by cluster."
    yield "likeness", caption, likeness_plot(likeness, groups)


if __name__ == "__main__":
    run(Config, main)
