"""``python -m asr_kd.specialists.report``: the paper's tables 3 and 4, what became of the students, and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from asr_kd.cli import run
from asr_kd.specialists.assign import CLUSTERS, load_clusters
from asr_kd.specialists.evaluate import load_results
from asr_kd.specialists.special import folders
from asr_kd.storage import MARK, Stage, read_json

if TYPE_CHECKING:
    import numpy as np

    from asr_kd.report.study import Picture, Section

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
    inputs = [*config.results, config.clusters, *folders(config.specialists)]
    stage = Stage("report", config.out, {"command": config.command}, inputs)
    if not stage.begin():
        return
    from asr_kd.report.study import write_report

    write_report(config.out, TITLE, list(tables(config)), _pictures(config), config.command)
    stage.finish()


def tables(config: Config) -> Iterator[Section]:
    """Right answers, the paper's tables 4 and 3, and the specialists themselves."""
    from asr_kd.report.study import Section
    from asr_kd.report.tables import Table, signed

    results = [(_short(folder), load_results(folder)) for folder in config.results]
    header = ["system", "right, %", "errors", "errors against the generalist", "p (McNemar)"]
    yield Section("Right answers", NOTE, Table(header, list(_systems(config))))
    header = ["specialists that cover the class", "examples", "generalist right", "with specialists", "relative change"]
    for name, found in results:
        rows = [
            [
                f"{row['specialists']}", f"{row['examples']:,}", f"{row['general']:,}", f"{row['combined']:,}",
                signed(100 * (row["combined"] / max(1, row["general"]) - 1)) + " %",
            ]
            for row in found["by_specialists_covering"]
        ]  # fmt: skip
        yield Section(f"By how many cover the class ({name}; the paper's table 4)", "", Table(header, rows))
    header = ["specialists", "examples of their classes", "generalist right, %", "specialist right, %"]
    rows = []
    for name, found in results:
        examples, general, special = (sum(row[i] for row in found["conditional"]) for i in range(3))
        rows.append([name, f"{examples:,}", f"{100 * general / examples:.2f}", f"{100 * special / examples:.2f}"])
    note = "When only a specialist's classes may be answered. The paper: 43.1 % → 45.9 %."
    yield Section("Conditional on the specialist's classes (the paper's table 3)", note, Table(header, rows))
    header = ["specialist", "classes", "examples an epoch", "seconds", "peak memory, MB", "some of its classes"]
    names = read_json(config.clusters / CLUSTERS)["names"]
    rows = []
    for folder, classes in zip(folders(config.specialists), names, strict=True):
        figures = read_json(folder / MARK)["figures"]
        cells = [f"{figures[key]:,}" for key in ("classes", "examples", "seconds", "peak_mb")]
        rows.append([folder.name.removeprefix("specialist-"), *cells, ", ".join(classes[:8])])
    yield Section("Specialists", "", Table(header, rows, frozenset({0, 5})))


NOTE = "p: of as many differences or more by chance, in an exact test of the examples that one of the two has right."


def _systems(config: Config) -> Iterator[list[str]]:
    import numpy as np

    from asr_kd.report.tables import signed

    seen: set[str] = set()
    for folder in config.results:
        right = np.load(folder / "right.npy", allow_pickle=False)
        errors = (~right).sum(1)
        for name, row, wrong in zip(load_results(folder)["systems"], right, errors, strict=True):
            label = name if "+" not in name else f"generalist + {_short(folder)}"
            if label not in seen:
                seen.add(label)
                change = signed(100 * (wrong / errors[0] - 1)) + " %"
                against = ["–", "–"] if label == "generalist" else [change, f"{_mcnemar(right[0], row):.2g}"]
                yield [label, f"{100 * row.mean():.2f}", f"{wrong:,}", *against]


def _short(folder: Path) -> str:
    return folder.name.removeprefix("results-")


def _mcnemar(one: np.ndarray, other: np.ndarray) -> float:
    from scipy.stats import binomtest

    better, worse = int((other & ~one).sum()), int((one & ~other).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def _pictures(config: Config) -> Iterator[Picture]:
    import numpy as np

    from asr_kd.report.figures import Series, line_plot
    from asr_kd.report.study import Picture
    from asr_kd.report.svg import SERIES
    from asr_kd.specialists.figures import likeness_plot

    lines = []
    for place, folder in enumerate(config.results):
        found = load_results(folder)
        right = [100 * count / found["examples"] for count in found["curve"].values()]
        numbers = [int(number) for number in found["curve"]]
        lines.append(Series(numbers, right, SERIES[1 + place], _short(folder)))
    plot = line_plot(lines, "Accuracy against specialists", "specialists", "right, %")
    yield Picture("curve", "Right answers with the first so many specialists.", plot)
    likeness = np.load(config.clusters / "likeness.npy", allow_pickle=False)
    caption = "How alike the generalist finds any two classes, as correlations, ordered by cluster."
    yield Picture("likeness", caption, likeness_plot(likeness, load_clusters(config.clusters)))


if __name__ == "__main__":
    run(Config, main)
