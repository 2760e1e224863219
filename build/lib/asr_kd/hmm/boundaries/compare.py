"""Errors of the phone and word boundaries of an alignment."""

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
    """Return statistics of the boundary errors of a split, and write those of the phones to boundaries_SPLIT.npy.

    Raises:
        UserError: ``cuts`` and ``truth`` have no utterance in common.
    """
    references = {item["id"]: item for item in read_jsonl(truth / f"truth_{split}.jsonl.gz")}
    errors: dict[str, list[float]] = {"phones": [], "words": []}
    matched = {"phones": 0, "words": 0}
    total = {"phones": 0, "words": 0}
    for cut in read_jsonl(cuts / f"cuts_{split}.jsonl.gz"):
        if cut["id"] not in references:
            continue
        alignment = cut["supervisions"][0].get("alignment") or {}
        for kind in ("phones", "words"):
            aligned = [(start, start + length, symbol) for symbol, start, length, *_ in alignment.get(kind[:-1], [])]
            reference = [(start, end, symbol) for start, end, symbol in references[cut["id"]][kind]]
            pairs = match(aligned, reference)
            total[kind] += sum(symbol != SILENCE for _, _, symbol in reference)
            matched[kind] += len(pairs)
            errors[kind] += boundary_errors(aligned, reference, pairs)
    if not matched["phones"]:
        raise UserError(
            f"{cuts} and {truth} have no utterance of {split} in common: compare folders of the same corpus"
        )
    save_array(out / f"boundaries_{split}.npy", np.array(errors["phones"], dtype=np.float32))
    return {kind: _statistics(errors[kind], matched[kind], total[kind]) for kind in errors}


def match(aligned: Sequence[Segment], reference: Sequence[Segment]) -> list[tuple[int, int]]:
    """Indices of the segments with equal symbols, without silences, in an alignment of minimum edit distance."""
    ours = [i for i, segment in enumerate(aligned) if segment[2] != SILENCE]
    theirs = [i for i, segment in enumerate(reference) if segment[2] != SILENCE]
    names = sorted({s[2] for s in [*aligned, *reference]})
    index = {name: i for i, name in enumerate(names)}
    a = np.array([index[aligned[i][2]] for i in ours])
    b = np.array([index[reference[i][2]] for i in theirs])
    return [(ours[i], theirs[j]) for i, j in _edit_path(a, b) if a[i] == b[j]]


def _edit_path(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the matched and substituted positions of an alignment of minimum edit distance, last first."""
    cost = np.zeros((len(a) + 1, len(b) + 1))
    cost[0], cost[:, 0] = np.arange(len(b) + 1), np.arange(len(a) + 1)
    for i in range(1, len(a) + 1):
        minimum = np.minimum(cost[i - 1, :-1] + (b != a[i - 1]), cost[i - 1, 1:] + 1)
        # Insertions move along the row: a running minimum of cost − position covers them all at once.
        row = np.concatenate([[cost[i, 0]], minimum]) - np.arange(len(b) + 1)
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
    aligned: Sequence[Segment], reference: Sequence[Segment], pairs: Sequence[tuple[int, int]]
) -> list[float]:
    """Signed errors (aligned − reference, ms) of the start of each matched segment, and of its end.

    An end that is the start of the next matched segment counts once.
    """
    errors = []
    starts = set(pairs)
    for i, j in pairs:
        errors.append(1000 * (aligned[i][0] - reference[j][0]))
        if (i + 1, j + 1) not in starts:
            errors.append(1000 * (aligned[i][1] - reference[j][1]))
    return errors


def _statistics(errors: Sequence[float], matched: int, total: int) -> dict[str, Any]:
    values = np.array(errors)
    magnitudes = np.abs(values)
    return {
        "boundaries": len(values),
        "matched": matched,
        "coverage_percent": round(100 * matched / max(total, 1), 2),
        "median_ms": round(float(np.median(magnitudes)), 2) if len(values) else None,
        "mean_ms": round(float(magnitudes.mean()), 2) if len(values) else None,
        "bias_ms": round(float(np.median(values)), 2) if len(values) else None,
        "within_percent": {
            str(ms): round(100 * float((magnitudes <= ms).mean()), 2) for ms in WITHIN_MS if len(values)
        },
    }
