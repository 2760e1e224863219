"""Figures of every system, read from the experiment's folders."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, stage_figures
from asr_kd.report.systems import Experiment, Run, System, baseline_and_ensemble, natural, runs_of
from asr_kd.score.bootstrap import Bootstrap, compare, interval
from asr_kd.score.frame_accuracy import frame_rates
from asr_kd.score.wer import Scores, pool, read_references, score_folder

RATES = ("all", "speech", "merged")


@dataclass
class WordErrors:
    """WER of a system on one split, in per cent: mean over its seeds, interval of the pooled bootstrap."""

    wer: float
    low: float
    high: float
    seeds: dict[int, float]
    insertions: float  # these three in per cent of the reference words
    deletions: float
    substitutions: float
    missing: list[str]


@dataclass
class Row:
    """One system of Table 1; frame accuracies in per cent, by split, then by rate (``RATES``), then by seed."""

    name: str
    label: str
    kind: str
    networks: int = 0
    parameters: int | None = None
    accuracy: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    words: dict[str, WordErrors] = field(default_factory=dict)
    gain_kept: dict[str, dict[str, float]] = field(default_factory=dict)
    rtf: dict[str, float] = field(default_factory=dict)
    scoring: dict[str, float] = field(default_factory=dict)

    def mean_accuracy(self, split: str, rate: str = "all") -> float | None:
        seeds = self.accuracy.get(split, {}).get(rate)
        return fmean(seeds.values()) if seeds else None


@dataclass
class Compared:
    """A system against its twin on one split: of one seed, or (seed None) of all seeds together."""

    system: str
    twin: str
    split: str
    seed: int | None
    wer: float
    twin_wer: float
    difference: float
    low: float
    high: float
    improvement: float
    p: float


@dataclass
class Curve:
    """A network's training: log.jsonl as columns, missing values left out."""

    system: str
    label: str
    seed: int
    entries: list[dict[str, float]]


@dataclass
class Results:
    """All that the report says."""

    rows: list[Row]
    comparisons: list[Compared]
    not_run: list[str]
    splits: list[str]
    baseline: str
    ensemble: str
    facts: dict[str, Any]

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def collect(
    experiment: Experiment, systems: Sequence[System], bootstrap: Bootstrap, gain: Sequence[str] = ()
) -> Results:
    """Read and score everything there is.

    Args:
        gain: names of the systems without and with the whole gain, of which students keep a share; the latter alone:
            each student's twin is without it; default: the ensemble's over its members.

    Raises:
        UserError: no system of the list was run, or what was decoded does not fit the cuts.
    """
    exp = experiment.root
    runs, not_run = {}, []
    for system in systems:
        runs[system.name], faults = runs_of(system, exp)
        not_run += [f"{system.label}: {fault}" for fault in faults]
    if not any(runs.values()):
        raise UserError(f"{exp} has nothing of the systems to report ({not_run[0]}): run the recipe first")
    splits = decoded_splits(run.decode for some in runs.values() for run in some)
    references = {split: read_references(experiment.cuts / f"cuts_{split}.jsonl.gz") for split in splits}
    scores: dict[tuple[str, str, int], Scores] = {}
    rows = []
    for system in systems:
        if not runs[system.name]:
            continue
        for run in runs[system.name]:
            for split in splits:
                if run.decode is not None and (run.decode / f"hyp_{split}.tsv").is_file():
                    scores[system.name, split, run.seed] = score_folder(run.decode, split, references[split])
        row, faults = _row(system, runs[system.name], splits, scores, bootstrap)
        rows.append(row)
        not_run += [f"{system.label}: {fault}" for fault in faults]
    baseline, ensemble = baseline_and_ensemble(systems, exp)
    if gain:
        named = [next(system for system in systems if system.name == name) for name in gain]
        baseline, ensemble = named[0] if len(named) > 1 else None, named[-1]
    _gains(rows, systems, baseline, ensemble)
    comparisons = [c for system in systems if system.twin for c in _compare(system, splits, scores, bootstrap)]
    names = [system.name if system else "" for system in (baseline, ensemble)]
    return Results(rows, comparisons, not_run, splits, names[0], names[1], {})


def decoded_splits(folders: Iterable[Path | None]) -> list[str]:
    """Splits with hypotheses: test, then further test sets, then dev."""
    names = {p.name[len("hyp_") : -len(".tsv")] for f in folders if f is not None for p in f.glob("hyp_*.tsv")}
    return sorted(names, key=lambda split: (split != "test", split == "dev", natural(split)))


def _row(
    system: System,
    runs: Sequence[Run],
    splits: Sequence[str],
    scores: Mapping[tuple[str, str, int], Scores],
    bootstrap: Bootstrap,
) -> tuple[Row, list[str]]:
    """A system's row and what is missing from it."""
    row = Row(system.name, system.label, system.kind, networks=sum(len(run.models) for run in runs))
    of_run = runs[0].models or ((runs[0].accuracy,) if runs[0].accuracy else ())
    counted = [stage_figures(folder).get("parameters", 0) for folder in of_run]
    row.parameters = sum(counted) if counted and all(counted) else None
    for run in runs:
        for split, counts in _accuracy(run).items():
            for rate, value in frame_rates(counts).items():
                row.accuracy.setdefault(split, {}).setdefault(rate, {})[run.seed] = value
    for split in splits:
        found = {run.seed: scores[key] for run in runs if (key := (system.name, split, run.seed)) in scores}
        if found:
            row.words[split] = _word_errors(found, bootstrap)
    marks = [run.decode / "decode.json" for run in runs if run.decode is not None]
    timed = [read_json(path)["splits"] for path in marks if path.is_file()]
    for split in splits:
        times = [splits_of[split] for splits_of in timed if split in splits_of]
        if times:
            row.rtf[split], row.scoring[split] = (fmean(time[key] for time in times) for key in ("rtf", "scoring_rtf"))
    faults = []
    if not row.accuracy and system.kind != "gmm" and any(run.accuracy for run in runs):
        faults.append("frame accuracy")
    for split, words in row.words.items():
        if words.missing:
            faults.append(f"{len(words.missing)} utterances of {split} have no hypothesis")
    return row, faults


def _accuracy(run: Run) -> dict[str, dict[str, int]]:
    path = run.accuracy / "accuracy.json" if run.accuracy is not None else None
    return dict(read_json(path)) if path is not None and path.is_file() else {}


def _word_errors(runs: Mapping[int, Scores], bootstrap: Bootstrap) -> WordErrors:
    together = pool(list(runs.values()))
    low, high = interval(together, bootstrap)
    insertions, deletions, substitutions, words = together.counts.sum(0).tolist()
    return WordErrors(
        wer=together.wer,
        low=low,
        high=high,
        seeds={seed: run.wer for seed, run in runs.items()},
        insertions=100 * insertions / words,
        deletions=100 * deletions / words,
        substitutions=100 * substitutions / words,
        missing=list(together.missing),
    )


def _gains(rows: Sequence[Row], systems: Sequence[System], baseline: System | None, ensemble: System | None) -> None:
    """Share of the ensemble's gain over the mean single network that students of the same kind keep; without a
    baseline, the share of the way from its twin to the ensemble that each student goes."""
    by_name = {row.name: row for row in rows}
    if ensemble is None or ensemble.name not in by_name:
        return
    high = by_name[ensemble.name]
    for system in systems:
        if system.kind != "student" or (baseline is not None and system.twin != baseline.name):
            continue
        if not {system.name, system.twin} <= set(by_name):
            continue
        low, row = by_name[system.twin], by_name[system.name]
        for split in row.accuracy:
            for rate in RATES:
                values = [r.mean_accuracy(split, rate) for r in (low, high, row)]
                if None in values:
                    continue
                single, best, student = (v for v in values if v is not None)
                if best > single:
                    row.gain_kept.setdefault(split, {})[rate] = (student - single) / (best - single)


def _compare(
    system: System, splits: Sequence[str], scores: Mapping[tuple[str, str, int], Scores], bootstrap: Bootstrap
) -> list[Compared]:
    """Seed by seed where both have several, and all together."""
    found = []
    for split in splits:
        own = {seed: s for (name, r, seed), s in scores.items() if (name, r) == (system.name, split)}
        other = {seed: s for (name, r, seed), s in scores.items() if (name, r) == (system.twin, split)}
        if not own or not other:
            continue
        pairs: list[tuple[int | None, Scores, Scores]] = []
        if min(len(own), len(other)) > 1:
            both = sorted(own.keys() & other.keys())
            pairs += [(seed, other[seed], own[seed]) for seed in both]
            own, other = {s: own[s] for s in both or own}, {s: other[s] for s in both or other}
        pairs.append((None, pool(list(other.values())), pool(list(own.values()))))
        for seed, first, second in pairs:
            figures = asdict(compare(first, second, bootstrap))
            found.append(Compared(system.name, system.twin, split, seed, second.wer, first.wer, **figures))
    return found


def curves(exp: Path, systems: Sequence[System]) -> list[Curve]:
    """Training logs of single networks and students; each network once."""
    found: dict[Path, Curve] = {}
    for system in systems:
        if system.kind in ("gmm", "ensemble"):
            continue
        for run in runs_of(system, exp)[0]:
            for folder in run.models:
                path = folder / "log.jsonl"
                if path.is_file() and folder not in found:
                    found[folder] = Curve(system.name, system.label, run.seed, _read_log(path))
    return list(found.values())


def _read_log(path: Path) -> list[dict[str, float]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): train this network again") from None
