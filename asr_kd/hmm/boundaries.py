"""``python -m asr_kd.hmm.boundaries``: phone and word boundaries of an alignment against the true ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.cli import run
from asr_kd.corpora.manifests import read_jsonl
from asr_kd.storage import Stage, UserError, save_array, write_json

Segment = tuple[float, float, str]  # start and end in seconds, symbol
WITHIN_MS = (10, 20, 30, 50)
SILENCE = "SIL"


@dataclass
class Config:
    """Compare an alignment with known phone and word times (of the embedded corpus).

    The phones of an utterance are matched by edit distance; the start and the end of each matched phone
    count, and so for words.  Writes boundaries.json and, for a histogram, boundaries_ROLE.npy
    with the signed errors of phone boundaries in ms.
    """

    cuts: Path
    """Folder with the aligned cuts (made by python -m asr_kd.hmm)."""
    truth: Path
    """Folder with truth_ROLE.jsonl.gz (made by python -m asr_kd.corpora)."""
    out: Path
    """Folder for the result."""
    roles: tuple[str, ...] = ("train", "dev", "test")
    """Roles to compare."""


def main(config: Config) -> None:
    truths = [config.truth / f"truth_{role}.jsonl.gz" for role in config.roles]
    stage = Stage("boundaries", config.out, config, [config.cuts, *truths])
    if not stage.begin():
        return
    result = {role: compare_role(config.cuts, config.truth, config.out, role) for role in config.roles}
    write_json(config.out / "boundaries.json", result)
    for role, one in result.items():
        phones = one["phones"]
        print(
            f"{role}: median |error| {phones['median_ms']} ms, within 30 ms {phones['within_percent']['30']} %, "
            f"bias {phones['bias_ms']} ms, {phones['coverage_percent']} % of phones matched"
        )
    stage.finish()


def compare_role(cuts: Path, truth: Path, out: Path, role: str) -> dict[str, Any]:
    """Statistics of a role's phone and word boundaries; keeps the phones' errors in boundaries_ROLE.npy.

    Raises:
        UserError: no utterance has both an alignment and the truth.
    """
    true = {item["id"]: item for item in read_jsonl(truth / f"truth_{role}.jsonl.gz")}
    errors: dict[str, list[float]] = {"phones": [], "words": []}
    matched = {"phones": 0, "words": 0}
    known = {"phones": 0, "words": 0}
    for cut in read_jsonl(cuts / f"cuts_{role}.jsonl.gz"):
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
        raise UserError(f"{cuts} and {truth} have no utterance of {role} in common: compare folders of one corpus")
    save_array(out / f"boundaries_{role}.npy", np.array(errors["phones"], dtype=np.float32))
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


if __name__ == "__main__":
    run(Config, main)
