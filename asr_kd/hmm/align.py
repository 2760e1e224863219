"""Forced alignment of cuts with the log-likelihoods of GMMs, networks or any other source."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from kaldi_hmm_gmm import ContextDependency
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.hmm.kaldi_io import read_transition_model, read_tree
from asr_kd.hmm.pronunciations import Pronunciations, locate_words
from asr_kd.hmm.scores import GmmScorer
from asr_kd.hmm.viterbi import BEAM, Graph, GraphCompiler, Transitions, phone_segments, viterbi_align
from asr_kd.lang.lexicon import Lexicon
from asr_kd.models.scorer import Scorer

#: Wider than the retry beam of training: the graph of a single transcript is small.
WIDE_BEAM = 100.0


@dataclass
class Alignment:
    """The alignment of one utterance.

    Attributes:
        senones: (T,) int32 pdf-ids.
        phones: (phone, first frame, frame after the last).
        words: (word, first frame, frame after the last).
        log_likelihood: log-likelihood per frame of the path.
    """

    senones: np.ndarray
    phones: list[tuple[str, int, int]] = field(default_factory=list)
    words: list[tuple[str, int, int]] = field(default_factory=list)
    log_likelihood: float = 0.0


def align_cuts(
    transitions: Transitions,
    tree: ContextDependency,
    pronunciations: Pronunciations,
    scorer: Scorer,
    cuts: Sequence[MonoCut],
    beam: float = BEAM,
    retry_beam: float = WIDE_BEAM,
) -> tuple[list[Alignment | str], Lexicon]:
    """Align cuts with their transcripts.

    Args:
        transitions: transition model.
        tree: decision tree of the same model.
        pronunciations: pronunciations of the words.
        scorer: log-likelihoods (T, C) of a cut.
        cuts: a few hundred at most, since they share one compiled lexicon.
        beam: pruning beam of the search.
        retry_beam: beam of a second attempt if no path survives the first.

    Returns:
        the alignment of each cut, or the reason why it has none; and the guessed pronunciations.
    """
    texts = [pronunciations.words(cut) for cut in cuts]
    lexicon, guessed = pronunciations.lexicon(texts)
    probabilities = pronunciations.probabilities(lexicon)
    compiler = GraphCompiler(transitions, tree, lexicon, probabilities, pronunciations.phones)
    results: list[Alignment | str] = []
    for cut, text in zip(cuts, texts, strict=True):
        if not text:
            results.append("empty transcript")
            continue
        graph = Graph.of(compiler(text), transitions)
        pdfs, columns = np.unique(transitions.pdf[graph.transition_ids], return_inverse=True)
        scores = _scores(scorer, cut, pdfs, transitions.num_pdfs)
        if not np.isfinite(scores.sum()):
            results.append("its scores are NaN or infinite")
            continue
        result = viterbi_align(graph, transitions, scores[:, columns], beam, retry_beam)
        if result is None:
            results.append(f"{len(scores)} frames do not align with the transcript")
        else:
            results.append(to_alignment(*result, transitions, text, lexicon, pronunciations))
    return results, guessed


def _scores(scorer: Scorer, cut: MonoCut, pdfs: np.ndarray, num_pdfs: int) -> np.ndarray:
    """The scores (T, len(pdfs)) of some pdfs; only of GMMs do the others not cost anything."""
    if isinstance(scorer, GmmScorer) and scorer.gmms.num_pdfs == num_pdfs:
        return scorer.pdf_scores(cut, pdfs)
    scores = scorer(cut)
    if scores.shape != (cut.num_frames, num_pdfs):
        raise UserError(
            f"the scores of {cut.id} have the shape {scores.shape} instead of "
            f"{(cut.num_frames, num_pdfs)}: use a model with the senones of this folder"
        )
    return scores[:, pdfs]


def to_alignment(
    path: np.ndarray, log_likelihood: float, transitions: Transitions, text: list[str], lexicon: Lexicon,
    pronunciations: Pronunciations,
) -> Alignment:  # fmt: skip
    """The alignment that a path of transition-ids (T,) is.

    Args:
        path: through the graph of ``text``.
        log_likelihood: of the path, per frame.
        transitions: the transition model.
        text: the words.
        lexicon: their pronunciations.
        pronunciations: names the phones.
    """
    ids, first = phone_segments(path, transitions)
    bounds = [*first.tolist(), len(path)]
    phones = [pronunciations.phones[i] for i in ids]
    spans = locate_words(phones, text, lexicon)
    return Alignment(
        transitions.pdf[path].astype(np.int32),
        [(pronunciations.lang.plain(phone), bounds[i], bounds[i + 1]) for i, phone in enumerate(phones)],
        [(word, bounds[start], bounds[end]) for word, (start, end) in zip(text, spans, strict=True)],
        log_likelihood,
    )


@dataclass(frozen=True)
class ForcedAligner:
    """Forced alignment with the transition model and tree of a folder and the scores of any model.

    Attributes:
        gmm: folder filled by python -m asr_kd.hmm.
        lang: folder filled by python -m asr_kd.lang.
        load_scorer: called once per chunk of cuts, in the worker process; it must pickle.
    """

    gmm: Path
    lang: Path
    load_scorer: Callable[[], Scorer]

    def __call__(self, cuts: Sequence[MonoCut]) -> tuple[list[Alignment | str], Lexicon]:
        transitions = Transitions.of(read_transition_model(self.gmm / "tri.mdl"))
        tree = read_tree(self.gmm / "tree")
        return align_cuts(transitions, tree, Pronunciations.load(self.lang), self.load_scorer(), cuts)
