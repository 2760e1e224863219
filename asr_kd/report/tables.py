"""Tables and sentences of the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from asr_kd.common.storage import stage_figures
from asr_kd.score.collect import Results, Row
from asr_kd.score.tables import Table, signed

NONE = "–"
BUNDLE_NOTES = """The network as it was trained, and as ONNX in float32 and in int8, from samples to scores on one core;
the same search finds the words.  Speakers are unknown to it, as those of new recordings are.  Confidences of words are
fitted to the first split."""


def table_one(results: Results) -> Table:
    """The paper's Table 1, with further columns: all test sets, sizes, and the real-time factor."""
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
        cells += [NONE if kept is None else per_cent(kept)]
        cells += [f"{row.rtf['test']:.3f} ({row.scoring['test']:.4f})" if "test" in row.rtf else NONE]
        rows.append(cells)
    return Table(header, rows)


def bundles(folders: Sequence[Path]) -> Table:
    """Size, WER, calibration error of the words' confidences, and speed of each bundle, in the forms of its network."""
    figures = [(folder.name, *item) for folder in folders for item in stage_figures(folder).items()]
    forms = [row for row in figures if row[1] != "seconds"]  # of the stage
    splits = list(dict.fromkeys(split for *_, found in forms for split in found["wer"]))
    rows = []
    for name, form, found in forms:
        errors = [f"{found['wer'][split]:.2f}" if split in found["wer"] else NONE for split in splits]
        judged = found.get("confidences", {})
        gaps = [f"{judged[split]['error']:.1f}" if split in judged else NONE for split in splits]
        rows.append(
            [
                name,
                form,
                f"{found['bytes'] / 1e6:.2f}",
                *errors,
                *gaps,
                NONE if found["rtf"] is None else f"{found['rtf']:.5f}",
            ]
        )
    columns = [f"{kind} {split} %" for kind in ("WER", "calibration error") for split in splits]
    return Table(["bundle", "form", "MB", *columns, "RTF (scoring)"], rows, frozenset({0, 1}))


def corpus(summary: Mapping[str, Mapping[str, float]]) -> Table:
    """Size of every split."""
    rows = [
        [split, str(s["utterances"]), str(s["speakers"]), f"{s['hours']:.2f}", str(s.get("skipped", 0))]
        for split, s in summary.items()
    ]
    return Table(["split", "utterances", "speakers", "hours", "skipped"], rows)


def stages(entries: Sequence[Mapping[str, Any]]) -> Table:
    """Settings, figures and seconds of every stage, in the order in which they were finished."""
    rows = [
        [
            str(e["folder"]) + (f" ({e['runs']} runs)" if e["runs"] > 1 else ""),
            plain(e["settings"]),
            plain(e["figures"]),
            f"{e['seconds']:.0f}",
        ]
        for e in entries
    ]
    return Table(["folder", "settings", "figures", "seconds per run"], rows, frozenset({0, 1, 2}))


def headlines(results: Results) -> list[str]:
    """The main results in sentences, as far as there are figures."""
    baseline, ensemble = results.row(results.baseline), results.row(results.ensemble)
    lines = []
    gmm = next((row for row in results.rows if row.kind == "gmm" and "test" in row.words), None)
    if baseline is not None and gmm is not None and "test" in baseline.words:
        lower, upper = baseline.words["test"].wer, gmm.words["test"].wer
        lines.append(f"{baseline.label}: WER {lower:.1f} % on test; {gmm.label}: {upper:.1f} %.")
    if baseline is not None and ensemble is not None:
        single, best = baseline.mean_accuracy("test"), ensemble.mean_accuracy("test")
        if single is not None and best is not None:
            lines.append(
                f"{ensemble.label}: frame accuracy {best:.2f} % on test, {signed(best - single)} points "
                f"against the mean single network ({single:.2f} %)."
            )
    for row in results.rows:
        kept = row.gain_kept.get("test", {})
        if kept:
            lines.append(
                f"{row.label}: keeps {per_cent(kept['all'])} of that gain "
                f"({per_cent(kept['speech'])} on speech frames; the paper: 86 %)."
            )
    for c in results.comparisons:
        if c.split == "test" and c.seed is None and getattr(results.row(c.system), "kind", "") == "student":
            names = {row.name: row.label for row in results.rows}
            lines.append(
                f"{names[c.system]} against {names[c.twin]}: WER {signed(c.difference)} points "
                f"(95 % interval {signed(c.low)} to {signed(c.high)})."
            )
    return [line[0].upper() + line[1:] for line in lines]


NOTES = """Frame accuracy: share of frames with the correct senone, over all frames and over frames aligned with
speech; with several seeds, the mean ± the standard deviation.  WER: with several seeds the mean, with the 95 %
bootstrap interval (the seeds are pooled, so it covers other utterances, not other seeds).  Gain kept: (student − mean
single network) / (ensemble − mean single network) in test frame accuracy.  RTF: time of scoring and search on one core,
divided by the duration of the audio; in brackets scoring alone, most of it the network."""


def label(row: Row) -> str:
    """The row's label, with the number of networks of an ensemble."""
    return f"{row.label} (× {row.networks})" if row.kind == "ensemble" and row.networks > 1 else row.label


def count(number: int | None) -> str:
    """1.23 M, 45 k."""
    if number is None:
        return NONE
    return f"{number / 1e6:.2f} M" if number >= 1e6 else f"{number / 1e3:.0f} k"


def per_cent(share: float) -> str:
    """0.86 as 86 %."""
    return f"{100 * share:.0f} %".replace("-", "−")


def spread(seeds: Mapping[int, float]) -> str:
    """Mean ± standard deviation over the seeds."""
    if not seeds:
        return NONE
    mean = f"{fmean(seeds.values()):.2f}"
    return f"{mean} ± {stdev(seeds.values()):.2f}" if len(seeds) > 1 else mean


def word_errors(row: Row, split: str) -> str:
    """WER with its interval."""
    if split not in row.words:
        return NONE
    words = row.words[split]
    return f"{words.wer:.2f} ({words.low:.1f} – {words.high:.1f})"


def plain(values: Mapping[str, Any]) -> str:
    """Scalars of a mapping as "name value, …", without nested mappings."""
    kept = {k: v for k, v in values.items() if v not in (None, "", [], {}) and not isinstance(v, dict)}
    return ", ".join(f"{k.replace('_', ' ')} {_value(v)}" for k, v in kept.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return "/".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
