"""Word errors of hypotheses against references, utterance by utterance.  Rates are in per cent throughout."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.common.text import Case, normalise, read_lines
from asr_kd.corpora.manifests import read_jsonl


@dataclass(frozen=True)
class Reference:
    """Transcript and speaker of an utterance."""

    words: tuple[str, ...]
    speaker: str


def read_references(path: Path, case: Case = "keep") -> dict[str, Reference]:
    """References by utterance id, from a cuts_SPLIT.jsonl.gz.  Cuts without a transcript have an empty reference.

    Words are in normal form with the given case.

    Raises:
        UserError: the file is missing or damaged, or has no words at all.
    """
    references: dict[str, Reference] = {}
    try:
        for cut in read_jsonl(path):
            spoken = cut["supervisions"][0] if cut.get("supervisions") else {}
            words = tuple(normalise(spoken.get("text") or "", case).split())
            references[cut["id"]] = Reference(words, spoken.get("speaker") or cut["id"])
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run its stage again") from None
    if not any(reference.words for reference in references.values()):
        raise UserError(f"{path} has no reference words: score a split with transcripts")
    return references


def read_hypotheses(path: Path, case: Case = "upper") -> dict[str, list[str]]:
    """Recognised words by utterance id, from lines id<TAB>words; without words, nothing was recognised.

    Words are in normal form with the given case.

    Raises:
        UserError: the file is missing or is not UTF-8, a line has no tab, or an id comes twice.
    """
    hypotheses: dict[str, list[str]] = {}
    if not path.is_file():
        raise UserError(f"{path} is missing: decode this split first (python -m asr_kd.decode)")
    for number, line in enumerate(read_lines(path), start=1):
        name, tab, words = line.partition("\t")
        if not tab or name in hypotheses:
            fault = f"the utterance {name} comes twice" if tab else "there is no tab between id and words"
            raise UserError(f"{path}, line {number}: {fault}: mend the line or decode this split again")
        hypotheses[name] = normalise(words, case).split()
    return hypotheses


@dataclass(frozen=True)
class Scores:
    """Word errors of one system on one split, utterance by utterance; of several seeds, their sum.

    Attributes:
        ids, speakers: N utterances of the reference, sorted by id.
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
    """Word errors of every reference utterance, by the edit distance.

    All words of a reference without a hypothesis count as deletions, and ``missing`` lists it; words recognised where
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


def score_folder(folder: Path, split: str, references: Mapping[str, Reference]) -> Scores:
    """``score`` of the hyp_SPLIT.tsv in a decoded folder; error messages name the file.

    Both sides are in the normal form of the graph, which decode.json tells; without that file, in upper case.
    """
    path, description = folder / f"hyp_{split}.tsv", folder / "decode.json"
    case: Case = read_json(description).get("text", "upper") if description.is_file() else "upper"
    own = {
        name: Reference(tuple(normalise(" ".join(reference.words), case).split()), reference.speaker)
        for name, reference in references.items()
    }
    try:
        return score(own, read_hypotheses(path, case))
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None


def pool(runs: Sequence[Scores]) -> Scores:
    """Sum of several runs (seeds) on the same utterances: its WER is the mean over the runs.

    The bootstrap draws all runs of an utterance together, since they are not independent.
    """
    assert runs and all(run.ids == runs[0].ids for run in runs)
    missing = tuple(sorted({name for run in runs for name in run.missing}))
    return Scores(runs[0].ids, runs[0].speakers, np.sum([run.counts for run in runs], axis=0), missing)
