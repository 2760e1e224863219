"""Tables of word error rates and comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass

from asr_kd.score.collect import Results


@dataclass(frozen=True)
class Table:
    """Header and rows of plain text; the columns in ``words`` hold words, the others figures."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset({0})

    def markdown(self) -> str:
        rule = ["---" if place in self.words else "--:" for place in range(len(self.header))]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in (self.header, rule, *self.rows))


def word_error_rates(results: Results) -> Table:
    """WER of every system and split, with its 95 % interval and the kinds of errors."""
    header = ["system", "split", "WER %", "95 % interval", "ins %", "del %", "sub %", "words", "utterances", "missing"]
    rows = [
        [
            row.label, split, f"{w.wer:.2f}", f"{w.low:.2f} – {w.high:.2f}", f"{w.insertions:.2f}",
            f"{w.deletions:.2f}", f"{w.substitutions:.2f}", str(w.words), str(w.utterances), str(len(w.missing)),
        ]
        for split in results.splits for row in results.rows if (w := row.words.get(split)) is not None
    ]  # fmt: skip
    return Table(header, rows, frozenset({0, 1}))


def comparisons(results: Results) -> Table:
    """Every system against its twin, on test sets."""
    header = ["system", "against", "split", "seed", "WER %", "difference", "95 % interval", "better in", "p"]
    labels = {row.name: row.label for row in results.rows}
    rows = [
        [
            labels[c.system], labels[c.twin], c.split, "all" if c.seed is None else str(c.seed),
            f"{c.twin_wer:.2f} → {c.wer:.2f}", signed(c.difference), f"{signed(c.low)} to {signed(c.high)}",
            f"{100 * c.improvement:.1f} %", "< 0.001" if c.p < 0.001 else f"{c.p:.3f}",
        ]
        for c in results.comparisons if c.split != "dev"
    ]  # fmt: skip
    return Table(header, rows, frozenset({0, 1, 2}))


def signed(value: float) -> str:
    """+1.20, −0.35."""
    return f"{value:+.2f}".replace("-", "−")


COMPARISON_NOTES = """Difference: WER of the system minus WER of the other, on the same utterances; negative is
better.  Seed all: the seeds that both systems have, pooled.  Better in: share of the bootstrap draws in which the
system makes fewer errors.  p: two-sided."""
