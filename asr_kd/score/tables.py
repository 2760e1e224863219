"""Word error rates as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asr_kd.score.bootstrap import Bootstrap, interval
from asr_kd.score.wer import Scores


def summary(scores: Scores, bootstrap: Bootstrap) -> dict[str, Any]:
    """JSON-ready figures of one system on one split."""
    insertions, deletions, substitutions, words = scores.counts.sum(0).tolist()
    low, high = interval(scores, bootstrap)
    return {
        "wer": scores.wer,
        "low": low,
        "high": high,
        "insertions": insertions,
        "deletions": deletions,
        "substitutions": substitutions,
        "words": words,
        "utterances": len(scores.ids),
        "speakers": len(set(scores.speakers)),
        "missing": list(scores.missing),
    }


def markdown(systems: Mapping[str, Mapping[str, Mapping[str, Any]]], pairs: Sequence[Mapping[str, Any]]) -> str:
    """Tables of ``summary`` by split and system, and of comparisons."""
    lines = []
    for split, scored in systems.items():
        lines += [
            f"| {split} | WER % | 95 % interval | ins | del | sub | words | utterances | missing |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        lines += [
            f"| {name} | {s['wer']:.2f} | {s['low']:.2f} – {s['high']:.2f} | {s['insertions']} | {s['deletions']} | "
            f"{s['substitutions']} | {s['words']} | {s['utterances']} | {len(s['missing'])} |"
            for name, s in scored.items()
        ] + [""]
    if pairs:
        lines += ["| B − A | on | WER difference | 95 % interval | B better in | p |", "|---|---|--:|--:|--:|--:|"]
        lines += [
            f"| {p['b']} − {p['a']} | {p['split']} | {p['difference']:+.2f} | {p['low']:+.2f} – {p['high']:+.2f} | "
            f"{100 * p['improvement']:.1f} % | {p['p']:.2g} |"
            for p in pairs
        ] + [""]
    return "\n".join(lines)
