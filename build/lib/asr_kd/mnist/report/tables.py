"""Tables of the MNIST report, next to the paper's figures."""

from collections.abc import Iterator
from statistics import median

from asr_kd.mnist.report.results import Errors, Results
from asr_kd.mnist.study.networks import EXTENSIONS, LABELS, SOFT_ONLY
from asr_kd.report.sections import Section
from asr_kd.report.tables import count
from asr_kd.score.tables import Table, signed

TITLE = "Distilling MNIST: section 3 of the paper"
PAPER = {"large": "67", "small": "146", "distilled": "74"}
ERRORS_HEADER = ["parameters", "test errors (of 10,000), median", "range", "training errors (of 60,000), median"]
BIAS_HEADER = [
    "transfer set", "median offset", "test errors (of 10,000) before", "after", "errors on corrected digits before",
    "after", "accuracy on corrected digits, %", "paper, test errors",
]  # fmt: skip
BIAS_NOTE = (
    "Medians over seeds. The offset with the fewest errors on the 60,000 training images is used. The paper chose "
    "its offsets on the test images: 206 errors (133 of 1,010 threes), 109 (14) with +3.5; 47.3 % and 13.2 % with −7.6."
)


def sections(results: Results) -> Iterator[Section]:
    """Yield one section for each part of the study."""
    networks = results.networks
    rows = [[*_errors(results, name), PAPER[name]] for name in PAPER if name in networks]
    closed = results.gap_closed
    note = "" if closed is None else f"The distilled network closes {100 * closed:.0f} % of the gap (paper: 91 %)."
    yield Section("1. Large, small, distilled", note, Table(["network", *ERRORS_HEADER, "paper"], rows))
    yield _temperatures(results)
    yield Section("3 and 4. Digits missing from the transfer set", BIAS_NOTE, Table(BIAS_HEADER, _bias_rows(results)))
    best = results.best_extension
    note = "" if best is None else (
        f"Chosen by validation errors (seed 0, distilled on the other 50,000 images; the teachers were trained on all "
        f"of them, so these errors only compare students): {LABELS[best]}, with a median of "
        f"{networks[best].median:g} test errors."
    )  # fmt: skip
    rows = [[*_errors(results, name), str(networks[name].held_out or "–")] for name in EXTENSIONS if name in networks]
    title = "2×800, T = 20, hard weight 0.5 unless stated otherwise"
    header = [title, *ERRORS_HEADER, "validation errors (of 10,000)"]
    yield Section("5. Extensions of the paper", note, Table(header, rows))
    rows = [_errors(results, name) for name in SOFT_ONLY if name in networks]
    note = "Section 2.1 of the paper: at high temperatures, distillation becomes logit matching."
    yield Section("5. Soft targets only", note, Table(["2×300, no labels", *ERRORS_HEADER], rows))


def _temperatures(results: Results) -> Section:
    widths = results.by_width()
    temperatures = sorted({t for errors in widths.values() for t in errors if t is not None})
    rows = [
        [f"2×{width}", *(_median(errors.get(t)) for t in (None, *temperatures))] for width, errors in widths.items()
    ]
    note = (
        "Median test errors (of 10,000). The paper: all temperatures above 8 are similar with 300 or more units, and "
        "2.5 to 4 is best with 30."
    )
    header = ["hidden units", "labels only", *(f"T = {t:g}" for t in temperatures)]
    return Section("2. Temperature against width", note, Table(header, rows))


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
    errors = results.networks[name]
    spread = f"{min(errors.test)} – {max(errors.test)}"
    return [LABELS[name], count(errors.parameters), f"{errors.median:g}", spread, f"{median(errors.train):g}"]


def _median(errors: Errors | None) -> str:
    return "–" if errors is None else f"{errors.median:g}"
