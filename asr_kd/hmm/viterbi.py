"""Training graphs and Viterbi alignment of single utterances, for the scores of GMMs and of networks alike."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import kaldi_hmm_gmm
import kaldifst
import numpy as np

from asr_kd.common.files import atomic_path
from asr_kd.hmm.states import States
from asr_kd.lang.fst import lexicon_fst, variant_costs
from asr_kd.lang.lexicon import Probabilities

ACOUSTIC_SCALE = 0.1
SELF_LOOP_SCALE = 0.1
SILENCE_PROBABILITY = 0.5  # of optional silence before, between and after words
BEAM, RETRY_BEAM = 10.0, 40.0  # Kaldi's defaults, in units of scaled log-likelihood


@dataclass(frozen=True)
class Transitions:
    """A transition model with its tables as arrays, indexed by transition-id unless stated (index 0 is unused).

    Attributes:
        model: Kaldi's object.
        pdf: pdf-id.
        phone: phone id.
        state: HMM state within the phone, from 0.
        starts_phone: whether the transition belongs to the first frame of a phone.
        first: first transition-id, indexed by transition-state.
        transition_state: transition-state.
        state_index: (phone, HMM state, pdf) -> transition-state.
    """

    model: kaldi_hmm_gmm.TransitionModel
    pdf: np.ndarray
    phone: np.ndarray
    state: np.ndarray
    starts_phone: np.ndarray
    first: np.ndarray
    transition_state: np.ndarray
    state_index: dict[tuple[int, int, int], int]

    @classmethod
    def of(cls, model: kaldi_hmm_gmm.TransitionModel) -> Transitions:
        triples = np.array([(0, -1, -1)] + [t.__getstate__()[:3] for t in model.tuples])
        states = np.array(model.id2state)
        loops = np.array([False] + [model.is_self_loop(i) for i in range(1, len(states))])
        phone, state = triples[states, 0], triples[states, 1]
        index = {(int(p), int(s), int(f)): i for i, (p, s, f) in enumerate(triples) if i}
        # Graphs are compiled with reorder=true: the self-loops of a state follow the transition that leaves it.
        starts = (state == 0) & ~loops
        return cls(model, np.array(model.id2pdf_id), phone, state, starts, np.array(model.state2id), states, index)

    def part(self, ids: np.ndarray) -> kaldi_hmm_gmm.TransitionModel:
        """A model of the transition-ids ``ids`` (K,), all those of some transition-states, as 1, …, K."""
        tuples, topology, _, _, _, pdfs, scores, leaving = self.tables
        states, first, numbers = np.unique(self.transition_state[ids], return_index=True, return_inverse=True)
        part = kaldi_hmm_gmm.TransitionModel.__new__(kaldi_hmm_gmm.TransitionModel)
        part.__setstate__((
            [tuples[state - 1] for state in states.tolist()], topology, [0, *(first + 1).tolist(), len(ids) + 1],
            [0, *(numbers + 1).tolist()], [0, *self.pdf[ids].tolist()], pdfs, [0.0, *(scores[i] for i in ids.tolist())],
            [0.0, *(leaving[state] for state in states.tolist())],
        ))  # fmt: skip
        return part

    @functools.cached_property
    def tables(self) -> tuple[Any, ...]:
        """The tables of Kaldi's object."""
        return tuple(self.model.__getstate__())

    @property
    def num_pdfs(self) -> int:
        return int(self.model.num_pdfs)


class GraphCompiler:
    """Compiles training graphs without transition probabilities.

    Args:
        transitions: the transition model.
        tree: the decision tree.
        lexicon: pronunciations of all words in the transcripts.
        probabilities: probabilities of the pronunciations, of some words or none.
        phones: names of the phones, indexed by id.
    """

    def __init__(
        self,
        transitions: Transitions,
        tree: kaldi_hmm_gmm.ContextDependency,
        lexicon: Mapping[str, Sequence[Sequence[str]]],
        probabilities: Probabilities,
        phones: Sequence[str],
    ) -> None:
        self._ids = {word: i for i, word in enumerate(lexicon, 1)}
        entries = [(word, tuple(variant)) for word, variants in lexicon.items() for variant in variants]
        phone_ids = {phone: i for i, phone in enumerate(phones)}
        costs = variant_costs(lexicon, probabilities) if probabilities else []
        fst = lexicon_fst(entries, phone_ids, self._ids, False, SILENCE_PROBABILITY, None, costs)
        options = kaldi_hmm_gmm.TrainingGraphCompilerOptions(0.0, 0.0, True)
        self._references = transitions, tree  # Kaldi's object holds raw pointers to both
        self._compiler = kaldi_hmm_gmm.TrainingGraphCompiler(transitions.model, tree, fst, [], options)

    def __call__(self, words: Sequence[str]) -> kaldifst.StdVectorFst:
        """Return the training graph of a transcript."""
        return self._compiler.compile_graph_from_text([self._ids[word] for word in words])


class Graph(NamedTuple):
    """A training graph, whose input labels are numbers of transition-ids, from 1, and without their probabilities.

    So it depends on the tree alone, and serves every model with the same one.

    Attributes:
        fst: the graph.
        transition_ids: (K,) sorted, all those of the transition-states in the graph.
    """

    fst: kaldifst.StdVectorFst
    transition_ids: np.ndarray

    @classmethod
    def of(cls, fst: kaldifst.StdVectorFst, transitions: Transitions) -> Graph:
        """The graph that ``GraphCompiler`` made.

        Kaldi copies the table of scores, whose columns are the labels - 1: with transition-ids as labels most would be
        unused.
        """
        # In its text: to look at each arc by kaldifst takes ten times as long.
        text = fst.to_str(fst_field_separator=" ")
        labels = {int(label) for label in re.findall(r"^\d+ \d+ (\d+)", text, re.MULTILINE)}
        states = transitions.transition_state[sorted(labels - {0})]
        ids = np.flatnonzero(np.isin(transitions.transition_state, states))
        return cls(relabel(fst, list(enumerate(ids.tolist(), 1))), ids)


def write_graphs(path: Path, graphs: Iterable[Graph]) -> None:
    """Write graphs as an archive of Kaldi's, whose keys are the transition-ids."""
    with atomic_path(path) as temporary, kaldifst.VectorFstWriter(f"ark:{temporary}") as writer:
        for graph in graphs:
            writer.write(",".join(map(str, graph.transition_ids.tolist())), graph.fst)


def read_graphs(path: Path) -> Iterator[Graph]:
    """The graphs of an archive, each to be used before the next one is read."""
    with kaldifst.SequentialVectorFstReader(f"ark:{path}") as reader:
        for key, fst in reader:
            yield Graph(fst, np.array(key.split(","), dtype=np.int64))


def equal_alignment(graph: Graph, frames: int, seed: int) -> np.ndarray | None:
    """Transition-ids (T,) of a random path through the graph whose states have about equal durations (flat start).

    None if there is no such path.
    """
    done, path = kaldifst.equal_align(graph.fst, frames, seed)
    if not done:
        return None
    _, labels, _, _ = kaldifst.get_linear_symbol_sequence(path)
    return graph.transition_ids[np.array(labels) - 1].astype(np.int32)


def viterbi_align(
    graph: Graph, transitions: Transitions, scores: np.ndarray, beam: float = BEAM, retry_beam: float = RETRY_BEAM
) -> tuple[np.ndarray, float] | None:
    """Find the most probable path through a training graph.

    Args:
        graph: of the transcript; the transition probabilities are added to it in place, so use it only once.
        transitions: the transition model.
        scores: (T, K) float32 log-likelihoods of the pdfs of the graph's transition-ids.
        beam: pruning beam.
        retry_beam: beam of a second attempt if no path survives the first.

    Returns:
        the transition-ids (T,) int32 and the log-likelihood per frame of the path; None if no path survives.
    """
    _add_transition_probabilities(graph.fst, transitions.part(graph.transition_ids))
    table = np.multiply(scores, np.float32(ACOUSTIC_SCALE), dtype=np.float32, order="C")
    _, failed, _, total, _, path, _ = kaldi_hmm_gmm.align_utterance_wrapper(
        kaldi_hmm_gmm.AlignConfig(beam, retry_beam), "", ACOUSTIC_SCALE, graph.fst,
        kaldi_hmm_gmm.DecodableCtc(table), 0, 0, 0, 0.0, 0,
    )  # fmt: skip
    if failed or len(path) != len(scores):
        return None
    return graph.transition_ids[np.array(path) - 1].astype(np.int32), total / len(scores)


def _add_transition_probabilities(graph: kaldifst.StdVectorFst, model: kaldi_hmm_gmm.TransitionModel) -> None:
    kaldi_hmm_gmm.add_transition_probs(
        trans_model=model, transition_scale=1.0, self_loop_scale=SELF_LOOP_SCALE, fst=graph
    )


def graph_states(graph: kaldifst.StdVectorFst, transitions: Transitions) -> tuple[States, np.ndarray]:
    """The states of a training graph with their transition probabilities, for recordings of any length.

    Args:
        graph: from ``GraphCompiler``.
        transitions: the transition model.

    Returns:
        the states, whose columns are pdfs; and their transition-ids (S, 2), in the first frame and in further ones.
    """
    graph = _without_words(graph)
    _add_transition_probabilities(graph, transitions.model)
    arcs = [
        (state, arc.nextstate, arc.ilabel, -arc.weight.value)
        for state in kaldifst.StateIterator(graph) for arc in kaldifst.ArcIterator(graph, state)
    ]  # fmt: skip
    before: dict[int, set[int]] = {}
    for source, target, _, _ in arcs:
        if source != target:
            before.setdefault(target, set()).add(source)
    numbers = {state: number for number, state in enumerate(TopologicalSorter(before).static_order(), -1)}
    # Kaldi's states have arcs of one transition-state into them, and a self-loop of the same: they are states of HMMs.
    steps: list[list[tuple[int, float]]] = [[(state, -np.inf)] for state in range(len(numbers) - 1)]
    ids, starts = np.zeros((len(steps), 2), np.int32), {}
    for source, target, label, score in arcs:
        state = numbers[target]
        ids[state, int(source == target)] = label
        if source == target:
            steps[state][0] = state, score
        elif source == graph.start:
            starts[state] = score
        else:
            steps[state].append((numbers[source], score))
    ends = {numbers[state]: -graph.final(state).value for state in numbers if np.isfinite(graph.final(state).value)}
    return States.of(transitions.pdf[ids[:, 0]].tolist(), steps, starts, ends), ids


def _without_words(graph: kaldifst.StdVectorFst) -> kaldifst.StdVectorFst:
    """An acceptor of the input labels of a graph, without epsilons."""
    lines = []
    for state in (graph.start, *(state for state in range(graph.num_states) if state != graph.start)):
        arcs = kaldifst.ArcIterator(graph, state)
        lines += [f"{state} {arc.nextstate} {arc.ilabel} {arc.weight.value}\n" for arc in arcs]
        if np.isfinite(graph.final(state).value):
            lines.append(f"{state} {graph.final(state).value}\n")
    acceptor = kaldifst.compile("".join(lines), acceptor=True)
    kaldifst.rmepsilon(acceptor)
    return acceptor


def relabel(fst: kaldifst.StdVectorFst, labels: Sequence[tuple[int, int]]) -> kaldifst.StdVectorFst:
    """Replace input label b by a for every (a, b) in ``labels``; arcs with other input labels are removed.

    This composes ``fst`` with a transducer of one state, since kaldifst cannot change labels in place.
    """
    mapper = kaldifst.compile("".join(f"0 0 {a} {b}\n" for a, b in labels) + "0\n")
    kaldifst.arcsort(mapper, sort_type="olabel")
    return kaldifst.compose(mapper, fst, connect=False)


def phone_segments(path: np.ndarray, transitions: Transitions) -> tuple[np.ndarray, np.ndarray]:
    """Phones (P,) and their first frames (P,) of an utterance with the transition-ids ``path`` (T,)."""
    first = np.flatnonzero(transitions.starts_phone[path])
    return transitions.phone[path[first]], first
