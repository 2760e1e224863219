"""Tables of the report as cells, and the Markdown file made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from asr_kd.report.collect import Compared, Results, Row

NONE = "–"


@dataclass(frozen=True)
class Table:
    """Header and rows of plain text; the first column is words, the others are figures unless ``words`` says so."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset({0})

    def markdown(self) -> str:
        rule = ["---" if place in self.words else "--:" for place in range(len(self.header))]
        return "\n".join("| " + " | ".join(cells) + " |" for cells in (self.header, rule, *self.rows))


def table_one(results: Results) -> Table:
    """The paper's Table 1, with what it leaves out."""
    tests = [split for split in results.splits if split != "dev"]
    header = ["system", "parameters"]
    accuracies = [(split, rate) for split in ("test", "dev") for rate in ("all", "speech")]
    header += [f"frame acc. {split}, {'all' if rate == 'all' else 'speech'} %" for split, rate in accuracies]
    header += [f"WER {split} %" for split in tests]
    header += ["gain kept", "RTF (scoring)"]
    rows = []
    for row in results.rows:
        cells = [label(row), count(row.parameters)]
        cells += [spread(row.accuracy.get(split, {}).get(rate, {})) for split, rate in accuracies]
        cells += [word_errors(row, split) for split in tests]
        kept = row.gain_kept.get("test", {}).get("all")
        cells += [NONE if kept is None else f"{100 * kept:.0f} %".replace("-", "−")]
        cells += [f"{row.rtf['test']:.3f} ({row.scoring['test']:.4f})" if "test" in row.rtf else NONE]
        rows.append(cells)
    return Table(header, rows)


def compared(results: Results) -> Table:
    """Every system against its twin, on test sets."""
    header = ["system", "against", "on", "seed", "WER %", "difference", "95 % interval", "better in", "p"]
    rows = [_compared(results, c) for c in results.comparisons if c.split != "dev"]
    return Table(header, rows, frozenset({0, 1, 2}))


def _compared(results: Results, c: Compared) -> list[str]:
    names = {row.name: row.label for row in results.rows}
    return [
        names[c.system],
        names[c.twin],
        c.split,
        "all" if c.seed is None else str(c.seed),
        f"{c.twin_wer:.2f} → {c.wer:.2f}",
        signed(c.difference),
        f"{signed(c.low)} to {signed(c.high)}",
        f"{100 * c.improvement:.1f} %",
        "< 0.001" if c.p < 0.001 else f"{c.p:.3f}",
    ]


def corpus(summary: Mapping[str, Mapping[str, float]]) -> Table:
    rows = [
        [split, str(s["utterances"]), str(s["speakers"]), f"{s['hours']:.2f}", str(s.get("skipped", 0))]
        for split, s in summary.items()
    ]
    return Table(["split", "utterances", "speakers", "hours", "skipped"], rows)


def stages(entries: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            str(e["folder"]) + (f" ({e['runs']} runs)" if e["runs"] > 1 else ""),
            plain(e["settings"]),
            plain(e["figures"]),
            f"{e['seconds']:.0f}",
        ]
        for e in entries
    ]
    return Table(["folder", "settings", "figures", "seconds a run"], rows, frozenset({0, 1, 2}))


def headlines(results: Results) -> list[str]:
    """What the table says, in sentences; only what there are figures for."""
    baseline, ensemble = results.row(results.baseline), results.row(results.ensemble)
    lines = []
    gmm = next((row for row in results.rows if row.kind == "gmm" and "test" in row.words), None)
    if baseline is not None and gmm is not None and "test" in baseline.words:
        lower, upper = baseline.words["test"].wer, gmm.words["test"].wer
        lines.append(f"{baseline.label}: {lower:.1f} % of the test words wrong; {gmm.label}: {upper:.1f} %.")
    if baseline is not None and ensemble is not None:
        single, best = baseline.mean_accuracy("test"), ensemble.mean_accuracy("test")
        if single is not None and best is not None:
            lines.append(
                f"{ensemble.label}: {best:.2f} % of the test frames right, {signed(best - single)} points "
                f"from the mean single network ({single:.2f} %)."
            )
    for row in results.rows:
        kept = row.gain_kept.get("test", {})
        if kept:
            lines.append(
                f"{row.label}: keeps {100 * kept['all']:.0f} % of that gain "
                f"({100 * kept['speech']:.0f} % on speech frames; the paper: 86 %)."
            )
    for c in results.comparisons:
        if c.split == "test" and c.seed is None and getattr(results.row(c.system), "kind", "") == "student":
            names = {row.name: row.label for row in results.rows}
            lines.append(
                f"{names[c.system]} against {names[c.twin]}: WER {signed(c.difference)} points "
                f"(95 % interval {signed(c.low)} to {signed(c.high)})."
            )
    return [line[0].upper() + line[1:] for line in lines]


def markdown(results: Results) -> str:
    """report.md."""
    about = results.facts
    parts = ["# Results", "\n".join(f"- {line}" for line in headlines(results)), table_one(results).markdown(), NOTES]
    if results.comparisons:
        parts += ["## Paired comparisons", compared(results).markdown(), COMPARISON_NOTES]
    if results.not_run:
        parts += ["## Not run", "\n".join(f"- {line}" for line in results.not_run)]
    if about["corpus"]:
        parts += ["## Corpus", corpus(about["corpus"]).markdown()]
    if about["graph"]:
        parts.append("Decoding graph: " + plain(about["graph"]) + ".")
    parts.append("## How it was made")
    if about["command"]:
        parts.append(f"```bash\n{about['command']}\n```")
    parts += [f"{about['date']}, {about['machine']}.", stages(about["stages"]).markdown()]
    return "\n\n".join(part for part in parts if part) + "\n"


NOTES = """Frame accuracy: senones right, of all frames and of frames aligned with speech; of several seeds
the mean ± the standard deviation.  WER: of several seeds the mean, with the 95 % bootstrap interval (the seeds pooled,
so it speaks of other utterances, not of other seeds).  Gain kept: (student − mean single network) / (ensemble − mean
single network) in test frame accuracy.  RTF: scoring and search on one core, divided by the duration of the audio;
in brackets scoring alone, most of it the network."""

COMPARISON_NOTES = """Difference: WER of the system minus that of the other, on the same utterances; negative
is better.  Seed all: the seeds that both have, pooled.  Better in: share of the bootstrap draws in which the system
makes fewer errors.  p: two-sided."""


def label(row: Row) -> str:
    return f"{row.label} (× {row.networks})" if row.kind == "ensemble" and row.networks > 1 else row.label


def count(number: int | None) -> str:
    """1.23 M, 45 k."""
    if number is None:
        return NONE
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def spread(seeds: Mapping[int, float]) -> str:
    """Mean ± standard deviation over the seeds."""
    if not seeds:
        return NONE
    mean = f"{fmean(seeds.values()):.2f}"
    return f"{mean} ± {stdev(seeds.values()):.2f}" if len(seeds) > 1 else mean


def word_errors(row: Row, split: str) -> str:
    if split not in row.words:
        return NONE
    words = row.words[split]
    return f"{words.wer:.2f} ({words.low:.1f} – {words.high:.1f})"


def plain(values: Mapping[str, Any]) -> str:
    """Scalars of a mapping as "name value, …"; nested mappings are left out."""
    kept = {k: v for k, v in values.items() if v not in (None, "", [], {}) and not isinstance(v, dict)}
    return ", ".join(f"{k.replace('_', ' ')} {_value(v)}" for k, v in kept.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
