"""Forced alignment of cuts with any pdf scores: the one path for GMMs and networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.hmm.kaldi_io import read_transition_model, read_tree
from asr_kd.hmm.viterbi import BEAM, GraphCompiler, Transitions, align, graph_labels, phones_of
from asr_kd.hmm.words import Lexicon, Words, locate_words

if TYPE_CHECKING:
    from kaldi_hmm_gmm import ContextDependency

#: For a second try, wider than in training: graphs of one transcript are small.
WIDE_BEAM = 100.0
#: (T, C) float32 log-likelihoods of a cut.
Scorer = Callable[[MonoCut], np.ndarray]


@dataclass
class Aligned:
    """One utterance's alignment.

    Attributes:
        senones: (T,) int32 pdf-ids.
        phones: (phone, first frame, one past the last).
        words: (word, first frame, one past the last).
        log_likelihood: of the path, per frame.
    """

    senones: np.ndarray
    phones: list[tuple[str, int, int]] = field(default_factory=list)
    words: list[tuple[str, int, int]] = field(default_factory=list)
    log_likelihood: float = 0.0


def align_cuts(
    transitions: Transitions,
    tree: ContextDependency,
    words: Words,
    scorer: Scorer,
    cuts: Sequence[MonoCut],
    beam: float = BEAM,
    retry_beam: float = WIDE_BEAM,
) -> tuple[list[Aligned | str], Lexicon]:
    """Align cuts with their transcripts.

    Args:
        transitions: transition model.
        tree: the model's.
        words: pronunciations.
        scorer: log-likelihoods (T, C) of a cut.
        cuts: a few hundred at most; their lexicon is compiled once.
        beam: of the search; a cut that fails is tried again with ``retry_beam``.

    Returns:
        for each cut its alignment, or why there is none; and the pronunciations that had to be guessed.
    """
    texts = [(cut.supervisions[0].text or "").split() for cut in cuts]
    lexicon, guessed = words.lexicon(texts)
    compiler = GraphCompiler(transitions, tree, lexicon, words.phones)
    results: list[Aligned | str] = []
    for cut, text in zip(cuts, texts, strict=True):
        if not text:
            results.append("empty transcript")
            continue
        graph = compiler(text)
        labels = graph_labels(graph)
        scores = scorer(cut)
        if scores.shape != (cut.num_frames, transitions.num_pdfs):
            raise UserError(
                f"scores of {cut.id} have the shape {scores.shape} instead of "
                f"{(cut.num_frames, transitions.num_pdfs)}: use a model of these senones"
            )
        found = align(graph, transitions, labels, scores[:, transitions.pdf[labels]], beam, retry_beam)
        if found is None:
            results.append(f"{len(scores)} frames do not align with the transcript")
        else:
            results.append(_describe(*found, transitions, text, lexicon, words.phones))
    return results, guessed


def _describe(
    path: np.ndarray, log_likelihood: float, transitions: Transitions, text: list[str], lexicon: Lexicon,
    names: Sequence[str],
) -> Aligned:  # fmt: skip
    ids, first = phones_of(path, transitions)
    bounds = [*first.tolist(), len(path)]
    phones = [names[i] for i in ids]
    spans = locate_words(phones, text, lexicon)
    return Aligned(
        transitions.pdf[path].astype(np.int32),
        [(phone, bounds[i], bounds[i + 1]) for i, phone in enumerate(phones)],
        [(word, bounds[start], bounds[end]) for word, (start, end) in zip(text, spans, strict=True)],
        log_likelihood,
    )


@dataclass(frozen=True)
class ScoredAlignment:
    """Forced alignment with the model in a folder of asr_kd.hmm and any scores."""

    gmm: Path
    lang: Path
    scorer: Scorer

    def __call__(self, cuts: Sequence[MonoCut]) -> tuple[list[Aligned | str], Lexicon]:
        transitions = Transitions.of(read_transition_model(self.gmm / "tri.mdl"))
        tree = read_tree(self.gmm / "tree")
        return align_cuts(transitions, tree, Words.load(self.lang), self.scorer, cuts)
