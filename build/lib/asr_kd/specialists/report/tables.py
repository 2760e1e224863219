"""Tables of the specialists' report: accuracies, the paper's tables 3 and 4, word error rates, and the specialists."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from asr_kd.common.storage import load_array, stage_figures
from asr_kd.report.sections import Section
from asr_kd.score.collect import Results
from asr_kd.score.tables import COMPARISON_NOTES, Table, comparisons, signed, word_error_rates
from asr_kd.specialists.files import load_class_names, load_results, specialist_folders
from asr_kd.specialists.report.config import Config

TITLE = "Specialists, and one network distilled from them"
ACCURACY_HEADER = [
    "system", "accuracy, %", "errors", "relative change of errors", "accuracy gain, points", "95 % interval", "p",
    "gain kept",
]  # fmt: skip
ACCURACY_NOTE = (
    "Changes and gains are relative to the generalist, on the same examples.  The interval and p (two-sided) are those "
    "of a normal distribution with the variance between units: examples, or utterances where the examples are frames.  "
    "Gain kept: the fraction of the specialists' reduction in errors that a single network of the generalist's size "
    "achieves.  Students and “longer” start from the generalist's weights; “longer” is trained with labels only."
)


def sections(config: Config) -> Iterator[Section]:
    """Yield the sections of the report."""
    yield Section("Accuracy", ACCURACY_NOTE, Table(ACCURACY_HEADER, list(_systems(config))))
    if config.words is not None:
        scores = Results.load(config.words / "score.json")
        yield Section("Word error rates", "", word_error_rates(scores))
        yield Section("Word error rates, paired comparisons", COMPARISON_NOTES, comparisons(scores))
    results = {short_name(folder): load_results(folder) for folder in config.results}
    header = ["specialists covering the class", "examples", "generalist correct", "with specialists", "relative change"]
    for name, result in results.items():
        rows = [
            [
                f"{row['specialists']}", f"{row['examples']:,}", f"{row['general']:,}", f"{row['combined']:,}",
                signed(100 * (row["combined"] / max(1, row["general"]) - 1)) + " %",
            ]
            for row in result["by_specialists_covering"]
        ]  # fmt: skip
        yield Section(f"Accuracy by coverage of the class ({name}; table 4 of the paper)", "", Table(header, rows))
    header = ["specialists", "examples of their classes", "generalist, accuracy %", "specialist, accuracy %"]
    rows = []
    for name, result in results.items():
        examples, general, special = (sum(row[i] for row in result["conditional"]) for i in range(3))
        rows.append([name, f"{examples:,}", f"{100 * general / examples:.2f}", f"{100 * special / examples:.2f}"])
    note = "Answers are restricted to the specialist's classes. The paper: 43.1 % → 45.9 %."
    yield Section("Conditional accuracy on the specialist's classes (table 3 of the paper)", note, Table(header, rows))
    header = ["specialist", "classes", "examples per epoch", "seconds", "peak memory, MB", "some of its classes"]
    rows = []
    for folder, names in zip(specialist_folders(config.specialists), load_class_names(config.clusters), strict=True):
        figures = stage_figures(folder)
        cells = [f"{figures[key]:,}" for key in ("classes", "examples", "seconds", "peak_mb")]
        rows.append([folder.name.removeprefix("specialist-"), *cells, ", ".join(names[:8])])
    yield Section("Specialists", "", Table(header, rows, frozenset({0, 5})))


def _systems(config: Config) -> Iterator[list[str]]:
    """Yield a row per system; the generalist, which is in all results, only once."""
    seen: set[str] = set()
    for folder in config.results:
        correct = load_array(folder / "right.npy")
        units = load_array(folder / "units.npy")
        errors = (~correct).sum(1)
        for name, row, count in zip(load_results(folder)["systems"], correct, errors, strict=True):
            label = name if "+" not in name else f"generalist + {short_name(folder)}"
            if label in seen:
                continue
            seen.add(label)
            comparison = ["–"] * 5
            if label != "generalist":
                gain, spread, p = paired_gain(correct[0], row, units)
                interval = f"{signed(gain - spread)} to {signed(gain + spread)}"
                change = signed(100 * (count / errors[0] - 1)) + " %"
                reduction = errors[0] - errors[1]  # by the specialists
                single = name.startswith("student") or name == "longer"
                kept = (
                    f"{100 * (errors[0] - count) / reduction:.0f} %".replace("-", "−")
                    if single and reduction > 0
                    else "–"
                )
                comparison = [change, signed(gain), interval, f"{p:.2g}", kept]
            yield [label, f"{100 * row.mean():.2f}", f"{count:,}", *comparison]


def short_name(folder: Path) -> str:
    """Return the kind of specialists from the folder of their evaluation."""
    return folder.name.removeprefix("results-")


def paired_gain(baseline: np.ndarray, system: np.ndarray, units: np.ndarray) -> tuple[float, float, float]:
    """Compare two systems on the same examples.

    Args:
        baseline, system: (N,) bool, which answers are correct.
        units: (N,) from 0, the unit of each example; units are independent of each other.

    Returns:
        gain of ``system`` in accuracy, points; half the width of its 95 % interval; p, two-sided.
    """
    from scipy.stats import norm

    difference = system.astype(float) - baseline
    gain = difference.mean()
    # The mean is a ratio of sums over units: its error is that of the sums of the residuals (linearised).
    error = np.sqrt(np.square(np.bincount(units, difference - gain)).sum()) / len(difference)
    p = 2 * norm.sf(abs(gain) / error) if error else float(gain == 0)
    return 100 * gain, 100 * norm.ppf(0.975) * error, p
