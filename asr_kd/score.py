"""Stage ``python -m asr_kd.score``: word error rate with intervals and paired comparisons; frame accuracy.

Intervals are percentiles of the bootstrap of Bisani and Ney (ICASSP 2004): utterances (or speakers) are drawn
with replacement, and two systems are compared on the same draws.  Word errors come from kaldialign.  Rates are
in per cent throughout.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asr_kd.cli import run
from asr_kd.storage import Stage, UserError, atomic_open, write_json

Unit = Literal["utterance", "speaker"]
#: Label of frames that never count.
PADDING = -100
#: Random draws held in memory at once.
_DRAWS = 4_000_000


@dataclass
class Config:
    """Word error rates of decoded roles, with 95 % bootstrap intervals and paired comparisons."""

    hyp: tuple[Path, ...]
    """Decoded folders (with hyp_ROLE.tsv); a system is called by its folder's name."""
    cuts: Path
    """Folder with the cuts_ROLE.jsonl.gz that were decoded: their supervisions are the reference."""
    out: Path
    """Folder for score.json and score.md."""
    roles: tuple[str, ...] = ("test",)
    """Roles to score."""
    pairs: tuple[str, ...] = ()
    """Systems to compare, A:B each: by how much B's error rate differs from A's."""
    bootstrap_by: Unit = "utterance"
    """What is drawn with replacement: utterances, as is usual, or speakers, whose utterances are not independent
    of each other (wider, more honest intervals; with fewer than about ten speakers a rough guide only)."""
    replications: int = 10_000
    """Bootstrap draws."""
    seed: int = 0
    """Seed of the draws."""


def main(config: Config) -> None:
    names = [path.name for path in config.hyp]
    if len(set(names)) != len(names):
        raise UserError(f"--hyp has two folders of the same name ({', '.join(names)}): rename one of them")
    pairs = [_parse_pair(text, names) for text in config.pairs]
    stage = Stage("score", config.out, config, [*config.hyp, *(_cuts(config.cuts, role) for role in config.roles)])
    if not stage.begin():
        return
    scores: dict[str, dict[str, Scores]] = {}
    for role in config.roles:
        references = read_references(_cuts(config.cuts, role))
        scores[role] = {path.name: score_folder(path, role, references) for path in config.hyp}
    bootstrap = Bootstrap(config.bootstrap_by, config.replications, config.seed)
    systems = {r: {n: summary(s, bootstrap) for n, s in scores[r].items()} for r in config.roles}
    compared = [
        {"a": a, "b": b, "role": role, **asdict(compare(scores[role][a], scores[role][b], bootstrap))}
        for role in config.roles
        for a, b in pairs
    ]
    settings = {"bootstrap_by": config.bootstrap_by, "replications": config.replications, "seed": config.seed}
    write_json(config.out / "score.json", {"roles": systems, "pairs": compared, **settings})
    text = markdown(systems, compared)
    with atomic_open(config.out / "score.md") as file:
        file.write(text)
    print(text, end="")
    stage.finish(systems=len(names), utterances={r: next(iter(s.values()))["utterances"] for r, s in systems.items()})


def _cuts(folder: Path, role: str) -> Path:
    return folder / f"cuts_{role}.jsonl.gz"


def _parse_pair(text: str, names: Sequence[str]) -> tuple[str, str]:
    first, _, second = text.partition(":")
    if first not in names or second not in names:
        raise UserError(f"--pairs {text!r} is not A:B with two of the systems: they are {', '.join(names)}")
    return first, second


@dataclass(frozen=True)
class Reference:
    """What was said."""

    words: tuple[str, ...]
    speaker: str


def normalise(text: str) -> list[str]:
    """Upper-case words of a line, split at white space."""
    return text.upper().split()


def read_references(path: Path) -> dict[str, Reference]:
    """Utterance id -> reference, from a cuts_ROLE.jsonl.gz.  Cuts without a transcript have an empty reference.

    Raises:
        UserError: the file is missing or damaged, or has no words at all.
    """
    references: dict[str, Reference] = {}
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                cut = json.loads(line)
                spoken = cut["supervisions"][0] if cut.get("supervisions") else {}
                words = tuple(normalise(spoken.get("text") or ""))
                references[cut["id"]] = Reference(words, spoken.get("speaker") or cut["id"])
    except FileNotFoundError:
        raise UserError(f"{path} is missing: check the role and the folder, or run the stage that makes it") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run its stage again") from None
    if not any(reference.words for reference in references.values()):
        raise UserError(f"{path} has no words to score against: score a role with transcripts")
    return references


def read_hypotheses(path: Path) -> dict[str, list[str]]:
    """Utterance id -> recognised words, from lines id<TAB>words (no words: nothing was recognised).

    Raises:
        UserError: the file is missing, a line has no tab, or an id comes twice.
    """
    hypotheses: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path} is missing: decode this role first (python -m asr_kd.decode)") from None
    except ValueError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}): decode this role again") from None
    for number, line in enumerate(lines, start=1):
        name, tab, words = line.partition("\t")
        if not tab or name in hypotheses:
            fault = f"the utterance {name} comes twice" if tab else "there is no tab between id and words"
            raise UserError(f"{path}, line {number}: {fault}: mend the line or decode this role again")
        hypotheses[name] = normalise(words)
    return hypotheses


@dataclass(frozen=True)
class Scores:
    """Word errors of one system (or the sum over several seeds of it) on one role, utterance by utterance.

    Attributes:
        ids, speakers: (N,) of the reference, sorted by id.
        counts: (N, 4) int64 insertions, deletions, substitutions, reference words.
        missing: utterances without a hypothesis; all their words count as deletions.
    """

    ids: tuple[str, ...]
    speakers: tuple[str, ...]
    counts: np.ndarray
    missing: tuple[str, ...]

    @property
    def errors(self) -> np.ndarray:
        """(N,) insertions + deletions + substitutions."""
        return self.counts[:, :3].sum(1)

    @property
    def wer(self) -> float:
        return 100 * float(self.errors.sum()) / float(self.counts[:, 3].sum())


def score(references: Mapping[str, Reference], hypotheses: Mapping[str, Sequence[str]]) -> Scores:
    """Word errors of every reference utterance.

    A reference without a hypothesis counts as deleted and is listed in ``missing``; words recognised where
    nothing was said are insertions.

    Raises:
        UserError: there are hypotheses of utterances that have no reference.
    """
    import kaldialign

    unknown = sorted(set(hypotheses) - set(references))
    if unknown:
        raise UserError(
            f"{len(unknown)} decoded utterances have no reference, such as {unknown[0]}: "
            "score against the cuts that were decoded"
        )
    ids = tuple(sorted(references))
    counts = np.zeros((len(ids), 4), dtype=np.int64)
    for row, name in enumerate(ids):
        words = references[name].words
        found = kaldialign.edit_distance(words, hypotheses.get(name, ()))
        counts[row] = found["ins"], found["del"], found["sub"], len(words)
    missing = tuple(name for name in ids if name not in hypotheses)
    return Scores(ids, tuple(references[name].speaker for name in ids), counts, missing)


def score_folder(folder: Path, role: str, references: Mapping[str, Reference]) -> Scores:
    """``score`` of a decoded folder's hyp_ROLE.tsv; the folder is named in errors."""
    hypotheses = read_hypotheses(folder / f"hyp_{role}.tsv")
    try:
        return score(references, hypotheses)
    except UserError as error:
        raise UserError(f"{folder / f'hyp_{role}.tsv'}: {error}") from None


def pool(runs: Sequence[Scores]) -> Scores:
    """Sum of several runs (seeds) on the same utterances: its WER is the mean over the runs.

    Drawing utterances of the pool takes all runs of an utterance together, as they are not independent.
    """
    assert runs and all(run.ids == runs[0].ids for run in runs)
    missing = tuple(sorted({name for run in runs for name in run.missing}))
    return Scores(runs[0].ids, runs[0].speakers, np.sum([run.counts for run in runs], axis=0), missing)


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are found.

    Attributes:
        by: what is drawn with replacement.
        replications: draws.
        seed: of the draws; the same for every system, so that comparisons are paired.
    """

    by: Unit = "utterance"
    replications: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replications < 100:
            raise UserError(f"--replications {self.replications} is too few for an interval: use 1000 or more")

    def rates(self, *systems: Scores) -> np.ndarray:
        """(R, S) WER of each of S systems in each draw.

        Draws without a single word are left out, so R may fall short of ``replications`` on tiny sets.
        """
        first = systems[0]
        assert all(system.ids == first.ids for system in systems)
        table = np.stack([column for s in systems for column in (s.errors, s.counts[:, 3])], axis=1)
        if self.by == "speaker":
            _, group = np.unique(first.speakers, return_inverse=True)
            table = np.stack([np.bincount(group, column) for column in table.T], axis=1)
        sums = self._sums(table.astype(np.float64))
        sums = sums[(sums[:, 1::2] > 0).all(1)]
        return 100 * sums[:, 0::2] / sums[:, 1::2]

    def _sums(self, table: np.ndarray) -> np.ndarray:
        """(R, K) sums over the rows drawn from ``table`` (N, K)."""
        random = np.random.default_rng(self.seed)
        rows = len(table)
        sums = np.empty((self.replications, table.shape[1]))
        step = max(1, _DRAWS // rows)
        for start in range(0, self.replications, step):
            size = min(step, self.replications - start)
            drawn = random.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
            times = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
            sums[start : start + size] = times @ table
        return sums


def interval(scores: Scores, bootstrap: Bootstrap) -> tuple[float, float]:
    """95 % interval of a system's WER."""
    low, high = np.percentile(bootstrap.rates(scores), [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same utterances.

    Attributes:
        difference: WER of the second minus WER of the first: negative where the second is better.
        low, high: 95 % interval of the difference.
        improvement: share of the draws in which the second has fewer errors.
        p: two-sided, of a difference this far from none: twice the smaller share of draws on one side of it.
    """

    difference: float
    low: float
    high: float
    improvement: float
    p: float


def compare(first: Scores, second: Scores, bootstrap: Bootstrap) -> Comparison:
    """Paired comparison of ``second`` with ``first``.

    Raises:
        UserError: they were not scored on the same utterances.
    """
    if first.ids != second.ids:
        raise UserError("the two systems were scored on different utterances: score both against the same cuts")
    rates = bootstrap.rates(first, second)
    differences = rates[:, 1] - rates[:, 0]
    low, high = np.percentile(differences, [2.5, 97.5])
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return Comparison(
        difference=second.wer - first.wer,
        low=float(low),
        high=float(high),
        improvement=float((differences < 0).mean()),
        p=min(1.0, 2 * (float(tail) + 1) / (len(differences) + 1)),
    )


def summary(scores: Scores, bootstrap: Bootstrap) -> dict[str, Any]:
    """JSON-ready figures of one system on one role."""
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
    """Tables of ``summary`` by role and system, and of comparisons."""
    lines = []
    for role, scored in systems.items():
        lines += [
            f"| {role} | WER % | 95 % interval | ins | del | sub | words | utterances | missing |",
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
            f"| {p['b']} − {p['a']} | {p['role']} | {p['difference']:+.2f} | {p['low']:+.2f} – {p['high']:+.2f} | "
            f"{100 * p['improvement']:.1f} % | {p['p']:.2g} |"
            for p in pairs
        ] + [""]
    return "\n".join(lines)


class FrameAccuracy:
    """Counts right frames, utterance by utterance.

    Args:
        silence_pdfs: senones of silence: not speech, and one class in the merged accuracy.
    """

    def __init__(self, silence_pdfs: Iterable[int]) -> None:
        self._silence = np.asarray(sorted(silence_pdfs), dtype=np.int64)
        self._counts = dict.fromkeys(("frames", "correct", "speech_frames", "speech_correct", "merged_correct"), 0)

    def update(self, labels: np.ndarray, predictions: np.ndarray) -> None:
        """Count the frames of one utterance.

        Args:
            labels: (T,) senones; frames labelled ``PADDING`` do not count.
            predictions: (T,) senones.

        Raises:
            ValueError: the shapes differ.
        """
        labels, predictions = np.asarray(labels), np.asarray(predictions)
        if labels.ndim != 1 or labels.shape != predictions.shape:
            raise ValueError(f"labels {labels.shape} and predictions {predictions.shape} must be (T,) both")
        labels, predictions = labels[labels != PADDING], predictions[labels != PADDING]
        right = labels == predictions
        silence = np.isin(labels, self._silence)
        merged = right | (silence & np.isin(predictions, self._silence))
        found = (len(labels), right.sum(), (~silence).sum(), (right & ~silence).sum(), merged.sum())
        for name, count in zip(self._counts, found, strict=True):
            self._counts[name] += int(count)

    def result(self) -> dict[str, int]:
        """Counts so far: frames, correct, speech_frames, speech_correct, merged_correct (silences as one class)."""
        return dict(self._counts)


def frame_rates(counts: Mapping[str, int]) -> dict[str, float]:
    """``FrameAccuracy.result()`` in per cent: of all frames, of speech frames, of all with the silences merged.

    A rate without a frame is left out.
    """
    parts = {
        "all": ("correct", "frames"),
        "speech": ("speech_correct", "speech_frames"),
        "merged": ("merged_correct", "frames"),
    }
    return {rate: 100 * counts[right] / counts[every] for rate, (right, every) in parts.items() if counts[every]}


if __name__ == "__main__":
    run(Config, main)
