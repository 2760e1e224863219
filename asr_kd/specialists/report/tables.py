"""``python -m asr_kd.specialists.report``: the paper's tables 3 and 4, what became of the students, and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.common.storage import MARK, read_json
from asr_kd.report.draw import Drawing
from asr_kd.report.figures import Series, line_plot
from asr_kd.report.sections import Section
from asr_kd.report.svg import SERIES
from asr_kd.report.tables import Table, signed
from asr_kd.specialists.assign.clusters_file import CLUSTERS, load_clusters
from asr_kd.specialists.evaluate.measure import load_results
from asr_kd.specialists.report.config import Config
from asr_kd.specialists.report.figures import likeness_plot
from asr_kd.specialists.special import folders

TITLE = "Specialists, and one network distilled from them"


def tables(config: Config) -> Iterator[Section]:
    """Right answers, the paper's tables 4 and 3, and the specialists themselves."""
    results = [(_short(folder), load_results(folder)) for folder in config.results]
    header = [
        "system",
        "right, %",
        "errors",
        "errors against the generalist",
        "points gained",
        "95 % interval",
        "p",
        "gain kept",
    ]
    yield Section("Right answers", NOTE, Table(header, list(_systems(config))))
    if config.words is not None:
        yield from _words(read_json(config.words / "score.json"))
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


NOTE = (
    "Points gained on the generalist, on the same examples: the interval and p (two-sided) are those of a normal "
    "distribution with the variance between units, which are examples, or utterances where the examples are frames. "
    "Gain kept: of the errors that the specialists take away, the share that one network of the generalist's size "
    "takes away too. Students and “longer” begin with the generalist's weights; longer learns from labels alone."
)


def _words(scored: Mapping[str, Any]) -> Iterator[Section]:
    """Word error rates of score.json."""
    for split, systems in scored["splits"].items():
        rows = [[name, f"{s['wer']:.2f}", f"{s['low']:.1f} – {s['high']:.1f}"] for name, s in systems.items()]
        yield Section(f"Words ({split})", "", Table(["system", "WER, %", "95 % interval"], rows))
    rows = [
        [
            f"{p['a']} → {p['b']}", p["split"], signed(p["difference"]),
            f"{signed(p['low'])} to {signed(p['high'])}", f"{p['p']:.2g}",
        ]
        for p in scored["pairs"]
    ]  # fmt: skip
    header = ["systems", "on", "difference of WER", "95 % interval", "p"]
    yield Section("Words, paired", "", Table(header, rows, frozenset({0, 1})))


def _systems(config: Config) -> Iterator[list[str]]:
    seen: set[str] = set()
    for folder in config.results:
        right = np.load(folder / "right.npy", allow_pickle=False)
        units = np.load(folder / "units.npy", allow_pickle=False)
        errors = (~right).sum(1)
        for name, row, wrong in zip(load_results(folder)["systems"], right, errors, strict=True):
            label = name if "+" not in name else f"generalist + {_short(folder)}"
            if label not in seen:
                seen.add(label)
                against = ["–"] * 5
                if label != "generalist":
                    gain, spread, p = paired(right[0], row, units)
                    interval = f"{signed(gain - spread)} to {signed(gain + spread)}"
                    against = [signed(100 * (wrong / errors[0] - 1)) + " %", signed(gain), interval, f"{p:.2g}"]
                    taken = errors[0] - errors[1]
                    single = name.startswith("student") or name == "longer"
                    against.append(f"{100 * (errors[0] - wrong) / taken:.0f} %" if single and taken > 0 else "–")
                yield [label, f"{100 * row.mean():.2f}", f"{wrong:,}", *against]


def _short(folder: Path) -> str:
    return folder.name.removeprefix("results-")


def paired(one: np.ndarray, other: np.ndarray, units: np.ndarray) -> tuple[float, float, float]:
    """Two systems on the same examples.

    Args:
        one, other: (N,) bool, which answers are right.
        units: (N,) from 0, which examples belong together; a unit is independent of another.

    Returns:
        points by which ``other`` has more right; half the width of the 95 % interval; p, two-sided.
    """
    from scipy.stats import norm

    difference = other.astype(float) - one
    gain = difference.mean()
    # The mean is a ratio of sums over units: its error is that of the sums of what differs from it (linearised).
    error = np.sqrt(np.square(np.bincount(units, difference - gain)).sum()) / len(difference)
    p = 2 * norm.sf(abs(gain) / error) if error else float(gain == 0)
    return 100 * gain, 100 * norm.ppf(0.975) * error, p


def _pictures(config: Config) -> Iterator[Drawing]:
    lines = []
    for place, folder in enumerate(config.results):
        found = load_results(folder)
        right = [100 * count / found["examples"] for count in found["curve"].values()]
        numbers = [int(number) for number in found["curve"]]
        lines.append(Series(numbers, right, SERIES[1 + place], _short(folder)))
    plot = line_plot(lines, "Accuracy against specialists", "specialists", "right, %")
    yield Drawing("curve", "Right answers with the first so many specialists.", plot)
    likeness = np.load(config.clusters / "likeness.npy", allow_pickle=False)
    caption = "How alike the generalist finds any two different classes, as correlations, ordered by cluster."
    yield Drawing("likeness", caption, likeness_plot(likeness, load_clusters(config.clusters)))
