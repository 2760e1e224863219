"""Training graphs and forced alignment of one utterance: the one aligner for GMMs and networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import kaldi_hmm_gmm
import kaldifst
import numpy as np

from asr_kd.lang.fst import lexicon_fst

#: Pronunciations of words, each a sequence of phones.
Lexicon = Mapping[str, Sequence[Sequence[str]]]

ACOUSTIC_SCALE = 0.1
SELF_LOOP_SCALE = 0.1
SILENCE_PROBABILITY = 0.5  # of a silence before, between and after words
BEAM, RETRY_BEAM = 10.0, 40.0  # Kaldi's, in units of scaled log-likelihood


@dataclass(frozen=True)
class Transitions:
    """A transition model with its tables as arrays, indexed by transition-id (0 is unused).

    Attributes:
        model: Kaldi's object.
        pdf: pdf-id.
        phone: phone id.
        state: HMM state within the phone, from 0.
        starts_phone: the transition is taken on a phone's first frame.
        first: first transition-id of each transition-state (0 is unused).
        owner: transition-state of each transition-id.
        state_index: (phone, HMM state, pdf) -> transition-state.
    """

    model: kaldi_hmm_gmm.TransitionModel
    pdf: np.ndarray
    phone: np.ndarray
    state: np.ndarray
    starts_phone: np.ndarray
    first: np.ndarray
    owner: np.ndarray
    state_index: dict[tuple[int, int, int], int]

    @classmethod
    def of(cls, model: kaldi_hmm_gmm.TransitionModel) -> Transitions:
        triples = np.array([(0, -1, -1)] + [t.__getstate__()[:3] for t in model.tuples])
        owner = np.array(model.id2state)
        loops = np.array([False] + [model.is_self_loop(i) for i in range(1, len(owner))])
        phone, state = triples[owner, 0], triples[owner, 1]
        index = {(int(p), int(s), int(f)): i for i, (p, s, f) in enumerate(triples) if i}
        # Graphs are made with reorder: a state's self-loops come after the transition that leaves it.
        starts = (state == 0) & ~loops
        return cls(model, np.array(model.id2pdf_id), phone, state, starts, np.array(model.state2id), owner, index)

    @property
    def num_pdfs(self) -> int:
        return int(self.model.num_pdfs)


class GraphCompiler:
    """Makes training graphs, without transition probabilities, over the words of one lexicon."""

    def __init__(
        self, transitions: Transitions, tree: kaldi_hmm_gmm.ContextDependency, lexicon: Lexicon, phones: Sequence[str]
    ) -> None:
        self._ids = {word: i for i, word in enumerate(lexicon, 1)}
        entries = [(word, tuple(one)) for word, variants in lexicon.items() for one in variants]
        phone_ids = {phone: i for i, phone in enumerate(phones)}
        fst = lexicon_fst(entries, phone_ids, self._ids, False, SILENCE_PROBABILITY, None)
        options = kaldi_hmm_gmm.TrainingGraphCompilerOptions(0.0, 0.0, True)
        self._kept = transitions, tree  # Kaldi's object holds plain pointers to both
        self._compiler = kaldi_hmm_gmm.TrainingGraphCompiler(transitions.model, tree, fst, [], options)

    def __call__(self, words: Sequence[str]) -> kaldifst.StdVectorFst:
        """The graph of a transcript whose words are all in the lexicon."""
        return self._compiler.compile_graph_from_text([self._ids[word] for word in words])


def graph_labels(graph: kaldifst.StdVectorFst) -> np.ndarray:
    """The transition-ids on a graph, sorted."""
    labels = {arc.ilabel for state in kaldifst.StateIterator(graph) for arc in kaldifst.ArcIterator(graph, state)}
    return np.array(sorted(labels - {0}), dtype=np.int64)


def equal_alignment(graph: kaldifst.StdVectorFst, frames: int, seed: int) -> np.ndarray | None:
    """Transition-ids (T,) of a random path through the graph whose states last about equally long."""
    done, path = kaldifst.equal_align(graph, frames, seed)
    if not done:
        return None
    _, labels, _, _ = kaldifst.get_linear_symbol_sequence(path)
    return np.array(labels, dtype=np.int32)


def align(
    graph: kaldifst.StdVectorFst,
    transitions: Transitions,
    labels: np.ndarray,
    scores: np.ndarray,
    beam: float = BEAM,
    retry_beam: float = RETRY_BEAM,
) -> tuple[np.ndarray, float] | None:
    """The best path through a graph.

    Args:
        graph: of ``GraphCompiler``; it gets the transition probabilities (and is used up).
        labels: its transition-ids (``graph_labels``).
        scores: (T, len(labels)) float32 log-likelihoods of the transition-ids' pdfs.

    Returns:
        Transition-ids (T,) int32 and the path's log-likelihood per frame; None when no path survives.
    """
    kaldi_hmm_gmm.add_transition_probs(
        trans_model=transitions.model, transition_scale=1.0, self_loop_scale=SELF_LOOP_SCALE, fst=graph
    )
    table = np.empty((len(scores), int(labels[-1])), dtype=np.float32)
    table[:, labels - 1] = scores * ACOUSTIC_SCALE  # column = transition-id - 1; the others are never asked for
    _, failed, _, total, _, path, _ = kaldi_hmm_gmm.align_utterance_wrapper(
        kaldi_hmm_gmm.AlignConfig(beam, retry_beam), "", ACOUSTIC_SCALE, graph,
        kaldi_hmm_gmm.DecodableCtc(table), 0, 0, 0, 0.0, 0,
    )  # fmt: skip
    if failed or len(path) != len(scores):
        return None
    return np.array(path, dtype=np.int32), total / len(scores)


def phones_of(path: np.ndarray, transitions: Transitions) -> tuple[np.ndarray, np.ndarray]:
    """Phones (P,) and first frames (P,) of an utterance's transition-ids (T,)."""
    first = np.flatnonzero(transitions.starts_phone[path])
    return transitions.phone[path[first]], first
