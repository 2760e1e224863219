"""``python -m asr_kd.hmm.boundaries``: phone and word boundaries of an alignment against the true ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import save_array
from asr_kd.corpora.manifests import read_jsonl

Segment = tuple[float, float, str]  # start and end in seconds, symbol
WITHIN_MS = (10, 20, 30, 50)
SILENCE = "SIL"


def compare_split(cuts: Path, truth: Path, out: Path, split: str) -> dict[str, Any]:
    """Statistics of a split's phone and word boundaries; keeps the phones' errors in boundaries_SPLIT.npy.

    Raises:
        UserError: no utterance has both an alignment and the truth.
    """
    true = {item["id"]: item for item in read_jsonl(truth / f"truth_{split}.jsonl.gz")}
    errors: dict[str, list[float]] = {"phones": [], "words": []}
    matched = {"phones": 0, "words": 0}
    known = {"phones": 0, "words": 0}
    for cut in read_jsonl(cuts / f"cuts_{split}.jsonl.gz"):
        if cut["id"] not in true:
            continue
        alignment = cut["supervisions"][0].get("alignment") or {}
        for kind in ("phones", "words"):
            found = [(start, start + length, symbol) for symbol, start, length, *_ in alignment.get(kind[:-1], [])]
            wanted = [(start, end, symbol) for start, end, symbol in true[cut["id"]][kind]]
            pairs = match(found, wanted)
            known[kind] += sum(symbol != SILENCE for _, _, symbol in wanted)
            matched[kind] += len(pairs)
            errors[kind] += boundary_errors(found, wanted, pairs)
    if not matched["phones"]:
        raise UserError(f"{cuts} and {truth} have no utterance of {split} in common: compare folders of one corpus")
    save_array(out / f"boundaries_{split}.npy", np.array(errors["phones"], dtype=np.float32))
    return {kind: _statistics(errors[kind], matched[kind], known[kind]) for kind in errors}


def match(found: Sequence[Segment], wanted: Sequence[Segment]) -> list[tuple[int, int]]:
    """Positions of equal symbols in a minimal edit script, silences left out."""
    ours = [i for i, segment in enumerate(found) if segment[2] != SILENCE]
    theirs = [i for i, segment in enumerate(wanted) if segment[2] != SILENCE]
    names = sorted({s[2] for s in [*found, *wanted]})
    index = {name: i for i, name in enumerate(names)}
    a = np.array([index[found[i][2]] for i in ours])
    b = np.array([index[wanted[i][2]] for i in theirs])
    return [(ours[i], theirs[j]) for i, j in _edit_path(a, b) if a[i] == b[j]]


def _edit_path(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, int]]:
    """Aligned positions (substitutions among them) of a minimal edit script, last first."""
    cost = np.zeros((len(a) + 1, len(b) + 1))
    cost[0], cost[:, 0] = np.arange(len(b) + 1), np.arange(len(a) + 1)
    for i in range(1, len(a) + 1):
        best = np.minimum(cost[i - 1, :-1] + (b != a[i - 1]), cost[i - 1, 1:] + 1)
        # Insertions run along the row: a running minimum of cost − position takes them all at once.
        row = np.concatenate([[cost[i, 0]], best]) - np.arange(len(b) + 1)
        cost[i] = np.minimum.accumulate(row) + np.arange(len(b) + 1)
    i, j = len(a), len(b)
    while i and j:
        if cost[i, j] == cost[i - 1, j - 1] + (a[i - 1] != b[j - 1]):
            i, j = i - 1, j - 1
            yield i, j
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1


def boundary_errors(
    found: Sequence[Segment], wanted: Sequence[Segment], pairs: Sequence[tuple[int, int]]
) -> list[float]:
    """Ours − true in ms: the start of every matched segment, and its end unless the next one's start is it."""
    errors = []
    starts = {(i, j) for i, j in pairs}
    for i, j in pairs:
        errors.append(1000 * (found[i][0] - wanted[j][0]))
        if (i + 1, j + 1) not in starts:
            errors.append(1000 * (found[i][1] - wanted[j][1]))
    return errors


def _statistics(errors: Sequence[float], matched: int, known: int) -> dict[str, Any]:
    values = np.array(errors)
    size = np.abs(values)
    return {
        "boundaries": len(values),
        "matched": matched,
        "coverage_percent": round(100 * matched / max(known, 1), 2),
        "median_ms": round(float(np.median(size)), 2) if len(values) else None,
        "mean_ms": round(float(size.mean()), 2) if len(values) else None,
        "bias_ms": round(float(np.median(values)), 2) if len(values) else None,
        "within_percent": {str(ms): round(100 * float((size <= ms).mean()), 2) for ms in WITHIN_MS if len(values)},
    }
