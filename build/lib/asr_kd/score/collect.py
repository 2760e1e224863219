"""Results of every system: frame accuracies, word error rates, comparisons; and the training logs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, stage_figures, verify
from asr_kd.score.bootstrap import Bootstrap, compare, interval
from asr_kd.score.frame_accuracy import frame_rates
from asr_kd.score.systems import GMMS, Run, System, finished_runs
from asr_kd.score.wer import Scores, pool, read_references, score_folder

RATES = ("all", "speech", "merged")


@dataclass
class WordErrors:
    """WER of a system on one split, in per cent of the reference words.

    Attributes:
        wer: mean over the seeds.
        low, high: 95 % bootstrap interval, with the seeds pooled.
        seeds: WER of each seed.
        insertions, deletions, substitutions: means over the seeds.
        words, utterances: size of the reference.
        missing: utterances without a hypothesis.
    """

    wer: float
    low: float
    high: float
    seeds: dict[int, float]
    insertions: float
    deletions: float
    substitutions: float
    words: int
    utterances: int
    missing: list[str]


@dataclass
class Row:
    """One system; frame accuracies are in per cent, by split, then by rate (``RATES``), then by seed."""

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
    """A system against its twin on one split: one seed, or all seeds pooled (seed None)."""

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
    """The training log of one network, an entry per epoch."""

    system: str
    label: str
    seed: int
    entries: list[dict[str, float]]


@dataclass
class Results:
    """Everything that was measured.

    Attributes:
        rows: the systems.
        comparisons: each system against its twin.
        not_run: a line for everything that is missing.
        splits: splits with hypotheses.
        baseline, ensemble: names of the systems without and with the whole gain of distillation; "" where unknown.
    """

    rows: list[Row]
    comparisons: list[Compared]
    not_run: list[str]
    splits: list[str]
    baseline: str
    ensemble: str

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read score.json, which the score stage writes.

        Raises:
            UserError: it is missing or damaged.
        """
        content = read_json(path)
        try:
            rows = [Row(**_by_seed(row)) for row in content.pop("rows")]
            comparisons = [Compared(**one) for one in content.pop("comparisons")]
            return cls(rows, comparisons, **content)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}): run python -m asr_kd.score again") from None


def _by_seed(row: dict[str, Any]) -> dict[str, Any]:
    """A row as JSON has it, with seeds as numbers again."""

    def numbers(seeds: dict[str, float]) -> dict[int, float]:
        return {int(seed): value for seed, value in seeds.items()}

    words = {split: WordErrors(**{**w, "seeds": numbers(w["seeds"])}) for split, w in row["words"].items()}
    accuracy = {s: {rate: numbers(seeds) for rate, seeds in rates.items()} for s, rates in row["accuracy"].items()}
    return {**row, "words": words, "accuracy": accuracy}


def _cuts_of(split: str, folders: Iterable[Path]) -> Path:
    """The cuts of a split in the first folder that has them."""
    paths = [folder / f"cuts_{split}.jsonl.gz" for folder in folders]
    return next((path for path in paths if path.is_file()), paths[0])


def collect(
    systems: Sequence[System], runs: Mapping[str, Sequence[Run]], cuts: Path, bootstrap: Bootstrap,
    gain: Sequence[str] = (), pairs: Sequence[tuple[str, str]] | None = None, splits: Sequence[str] = (),
) -> Results:  # fmt: skip
    """Read and score everything that is there.

    Args:
        systems: the rows.
        runs: the finished runs of each system, by its name.
        cuts: folder with the cuts_SPLIT.jsonl.gz that were decoded: their transcripts are the reference.  Those of
            splits that it lacks come from the features of the systems.
        bootstrap: how intervals are found.
        gain: names of the systems without and with the whole gain, of which students keep a share; with one name
            each student's twin is the system without it; default: the first ensemble and the networks it consists of.
        pairs: (system, twin) to compare; default: every system with its twin.
        splits: splits to score; default: all that were decoded.

    Raises:
        UserError: what was decoded does not fit the cuts.
    """
    not_run: list[str] = []
    splits = splits or decoded_splits(run.decode for some in runs.values() for run in some)
    folders = dict.fromkeys([cuts, *(system.data["features"] for system in systems if "features" in system.data)])
    references = {split: read_references(_cuts_of(split, folders)) for split in splits}
    scores: dict[tuple[str, str, int], Scores] = {}
    rows = []
    for system in systems:
        if not runs[system.name]:
            continue
        for run in runs[system.name]:
            for split in splits:
                if run.decode is not None and verify(run.decode / f"hyp_{split}.tsv").is_file():
                    scores[system.name, split, run.seed] = score_folder(run.decode, split, references[split])
        row, faults = _row(system, runs[system.name], splits, scores, bootstrap)
        rows.append(row)
        not_run += [f"{system.label}: {fault}" for fault in faults]
    baseline, ensemble = _baseline_and_ensemble(systems)
    if gain:
        baseline, ensemble = gain[0] if len(gain) > 1 else "", gain[-1]
    _add_gains(rows, systems, baseline, ensemble)
    if pairs is None:
        pairs = [(system.name, system.twin) for system in systems if system.twin]
    comparisons = [c for pair in pairs for c in _compare(*pair, splits, scores, bootstrap)]
    return Results(rows, comparisons, not_run, list(splits), baseline, ensemble)


def collect_experiment(
    systems: Sequence[System], exp: Path, cuts: Path, bootstrap: Bootstrap, gain: Sequence[str] = ()
) -> Results:
    """``collect`` of an experiment's folder; what is missing from it is listed as not run.

    Raises:
        UserError: none of the systems was run, or what was decoded does not fit the cuts.
    """
    runs, not_run = {}, []
    for system in systems:
        runs[system.name], faults = finished_runs(system, exp)
        not_run += [f"{system.label}: {fault}" for fault in faults]
    if not any(runs.values()):
        raise UserError(f"{exp} has no results of the systems ({not_run[0]}): run the recipe first")
    results = collect(systems, runs, cuts, bootstrap, gain)
    results.not_run = not_run + results.not_run
    return results


def _baseline_and_ensemble(systems: Sequence[System]) -> tuple[str, str]:
    """Names of the first ensemble, and of the single networks that it consists of (else of the first ones)."""
    ensemble = next((s for s in systems if s.kind == "ensemble"), None)
    singles = [s for s in systems if s.kind == "single"]
    members = {folder for run in ensemble.runs for folder in run.models} if ensemble else set()
    own = [s for s in singles if members & {folder for run in s.runs for folder in run.models}]
    baseline = next(iter(own or singles), None)
    return baseline.name if baseline else "", ensemble.name if ensemble else ""


def decoded_splits(folders: Iterable[Path | None]) -> list[str]:
    """Splits with hypotheses: test, the further test sets, dev."""
    names = {p.name[len("hyp_") : -len(".tsv")] for f in folders if f is not None for p in f.glob("hyp_*.tsv")}
    return sorted(names, key=lambda split: (split != "test", split == "dev", _natural(split)))


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
    if not row.accuracy and system.kind not in GMMS and any(run.accuracy for run in runs):
        faults.append("frame accuracy")
    for split, words in row.words.items():
        if words.missing:
            faults.append(f"{len(words.missing)} utterances of {split} have no hypothesis")
    return row, faults


def _accuracy(run: Run) -> dict[str, dict[str, int]]:
    path = run.accuracy / "accuracy.json" if run.accuracy is not None else None
    return dict(read_json(path)) if path is not None and path.is_file() else {}


def _word_errors(runs: Mapping[int, Scores], bootstrap: Bootstrap) -> WordErrors:
    pooled = pool(list(runs.values()))
    low, high = interval(pooled, bootstrap)
    insertions, deletions, substitutions, words = pooled.counts.sum(0).tolist()
    return WordErrors(
        wer=pooled.wer,
        low=low,
        high=high,
        seeds={seed: run.wer for seed, run in runs.items()},
        insertions=100 * insertions / words,
        deletions=100 * deletions / words,
        substitutions=100 * substitutions / words,
        words=words // len(runs),
        utterances=len(pooled.ids),
        missing=list(pooled.missing),
    )


def _add_gains(rows: Sequence[Row], systems: Sequence[System], baseline: str, ensemble: str) -> None:
    """Share of the ensemble's gain over the mean single network that students of the same kind keep; without a
    baseline, the share of the way from its twin to the ensemble that each student goes."""
    by_name = {row.name: row for row in rows}
    if ensemble not in by_name:
        return
    high = by_name[ensemble]
    for system in systems:
        if system.kind != "student" or (baseline and system.twin != baseline):
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
    system: str, twin: str, splits: Sequence[str], scores: Mapping[tuple[str, str, int], Scores], bootstrap: Bootstrap
) -> list[Compared]:
    """Comparisons seed by seed where both have several seeds, and of all seeds pooled."""
    found = []
    for split in splits:
        own = {seed: s for (name, r, seed), s in scores.items() if (name, r) == (system, split)}
        other = {seed: s for (name, r, seed), s in scores.items() if (name, r) == (twin, split)}
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
            found.append(Compared(system, twin, split, seed, second.wer, first.wer, **figures))
    return found


def training_curves(systems: Sequence[System], exp: Path) -> list[Curve]:
    """Training logs of single networks and students, each network once."""
    curves: dict[Path, Curve] = {}
    for system in systems:
        if system.kind in (*GMMS, "ensemble"):
            continue
        for run in finished_runs(system, exp)[0]:
            for folder in run.models:
                if folder not in curves:
                    curves[folder] = Curve(system.name, system.label, run.seed, _read_log(folder / "log.jsonl"))
    return list(curves.values())


def _read_log(path: Path) -> list[dict[str, float]]:
    try:
        return [json.loads(line) for line in verify(path).read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged ({error}): train this network again") from None


def _natural(text: str) -> list[tuple[int, str]]:
    """Sort key that puts snr10 after snr5."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", text)]
