"""``python -m asr_kd.mnist.report``: tables beside the paper's numbers, figures, and a page with both."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from asr_kd.mnist.report.results import Errors, Results
from asr_kd.mnist.study.networks import LABELS, MATCHED, PAST
from asr_kd.report.sections import Section
from asr_kd.report.tables import Table, count, signed

TITLE = "Distilling MNIST: section 3 of the paper"
PAPER = {"large": "67", "small": "146", "distilled": "74"}


def tables(results: Results) -> Iterator[Section]:
    """One for each part."""
    networks = results.networks
    header = ["network", "parameters", "test errors, median", "range", "training errors, median", "paper"]
    rows = [[*_errors(results, name), PAPER[name]] for name in PAPER if name in networks]
    closed = results.gap_closed
    note = "" if closed is None else f"The distilled network closes {100 * closed:.0f} % of the gap (the paper: 91 %)."
    yield Section("1. Large, small, distilled", note, Table(header, rows))
    widths = results.by_width()
    temperatures = sorted({t for found in widths.values() for t in found if t is not None})
    columns = [None, *temperatures]
    rows = [[f"2×{width}", *(_median(found.get(t)) for t in columns)] for width, found in widths.items()]
    note = "Median test errors. The paper: above T = 8 all alike for 300 or more units, 2.5 to 4 best for 30."
    by_width = ["hidden units", "labels", *(f"T = {t:g}" for t in temperatures)]
    yield Section("2. Temperature against width", note, Table(by_width, rows))
    yield Section("3 and 4. Digits that were never shown", BIAS_NOTE, Table(BIAS_HEADER, _bias_rows(results)))
    best = results.best_past
    last = "errors on 10,000 held out"
    note = "" if best is None else (
        f"Chosen by the digits held out (seed 0, distilled on the other 50,000; the teachers had seen them, so these "
        f"counts compare students alone): {LABELS[best]}, with a median of {networks[best].median:g} test errors."
    )  # fmt: skip
    rows = [[*_errors(results, name), str(networks[name].held_out or "–")] for name in PAST if name in networks]
    title = "2×800, T = 20, hard weight 0.5 unless said otherwise"
    yield Section("5. Past the paper", note, Table([title, *header[1:5], last], rows))
    rows = [_errors(results, name) for name in MATCHED if name in networks]
    note = "The paper's section 2.1: at high temperatures distilling becomes the matching of logits."
    yield Section("5. Soft targets alone", note, Table(["2×300, no labels", *header[1:5]], rows))


BIAS_HEADER = [
    "transfer set", "offset, median", "test errors before", "after", "of them, digits in question before", "after",
    "right of those, %", "paper",
]  # fmt: skip
BIAS_NOTE = (
    "Medians over seeds. The offset is the one with the fewest errors on the 60,000 training digits. The paper chose "
    "its offsets on the test digits: 206 errors (133 of 1,010 threes), 109 (14) with +3.5; 47.3 % and 13.2 % with −7.6."
)


def _bias_rows(results: Results) -> list[list[str]]:
    rows = []
    for name, paper, own in (("without-3", "206 → 109", 1010), ("only-7-8", "4730 → 1320", 2002)):
        seeds = results.corrections.get(name)
        if seeds:
            before, after = (median(c.own_errors[i] for c in seeds) for i in range(2))
            counts = [median(c.errors[0] for c in seeds), median(c.errors[1] for c in seeds), before, after]
            rows.append(
                [
                    LABELS[name], signed(median(c.offset for c in seeds)), *(f"{count:g}" for count in counts),
                    f"{100 * (1 - after / own):.1f}", paper,
                ]
            )  # fmt: skip
    return rows


def _errors(results: Results, name: str) -> list[str]:
    found = results.networks[name]
    spread = f"{min(found.test)} – {max(found.test)}"
    return [LABELS[name], count(found.parameters), f"{found.median:g}", spread, f"{median(found.train):g}"]


def _median(errors: Errors | None) -> str:
    return "–" if errors is None else f"{errors.median:g}"
