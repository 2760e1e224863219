"""Slots of HCLG: where words that the lexicon lacks are put in after HCLG has been compiled.

A placeholder stands in L and among the unigrams of G for all words to come: any phone that may begin a word, and any
that may end one.  Its neighbours have the senones that they have next to those phones.  In HCLG, the arcs of these two
phones are slots: a new word begins at those of its first phone and of the phone before it, which it hears too, and ends
at those of its last phone and of the phone after it.  So its senones are those that it would have in a new graph.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kaldi_hmm_gmm
import kaldifst
import numpy as np

from asr_kd.hmm.tree import Node
from asr_kd.hmm.viterbi import Transitions, relabel
from asr_kd.lang.folder import SILENCE, Lang
from asr_kd.lang.fst import BEFORE, BETWEEN, write_fst
from asr_kd.lang.lexicon import POSITIONS
from asr_kd.lang.openfst import find_arcs


def takes_new_words(lang: Lang, tree: kaldi_hmm_gmm.ContextDependency, model: kaldi_hmm_gmm.TransitionModel) -> bool:
    """Whether the graph can have slots: for words of triphones whose states follow one another."""
    if lang.kind != "phone" or tree.context_width != 3:
        return False
    return all(_is_chain(model, phone) for phone in lang.real_phones if lang.phones[phone] not in SILENCE)


def _is_chain(model: kaldi_hmm_gmm.TransitionModel, phone: int) -> bool:
    """Whether each state of a phone leads to itself and the next one alone."""
    states = model.topo.topology_for_phone(phone)[:-1]
    return all(sorted(to for to, _ in state.transitions) == [i, i + 1] for i, state in enumerate(states))


class Slot(NamedTuple):
    """An input label of a slot.

    Attributes:
        begins: whether a new word begins there, or ends.
        left, right: the phone before the new word and its first one, or its last one and that after it; 0: none.
    """

    begins: bool
    left: int
    right: int


class Placeholder:
    """A word that no text has: a first phone, a gap and a last phone.

    Args:
        lang: lexicon and language model of words.
    """

    def __init__(self, lang: Lang) -> None:
        self.lang, self.word = lang, len(lang.words)
        #: As probable as the average word.
        self.cost = math.log(len(lang.lexicon))
        speech = [phone for phone in lang.real_phones if lang.phones[phone] not in SILENCE]
        begin, _, end, only = POSITIONS
        ids = iter(range(len(lang.phones), len(lang.phones) + 2 * len(speech) + 1))
        self.gap = next(ids)
        self._first = {next(ids): phone for phone in speech if self._may_be(phone, begin, only)}
        self._last = {next(ids): phone for phone in speech if self._may_be(phone, end, only)}

    def _may_be(self, phone: int, *positions: str) -> bool:
        return not self.lang.positions or self.lang.phones[phone].endswith(positions)

    def add_to_lexicon(self, lexicon: kaldifst.StdVectorFst) -> None:
        """Let L accept it where it accepts words."""
        begun, open_ended = lexicon.add_state(), lexicon.add_state()
        for phone in self._first:
            lexicon.add_arc(BEFORE, kaldifst.StdArc(phone, self.word, 0.0, begun))
        lexicon.add_arc(begun, kaldifst.StdArc(self.gap, 0, 0.0, open_ended))
        for phone in self._last:
            lexicon.add_arc(open_ended, kaldifst.StdArc(phone, 0, 0.0, BETWEEN))
        kaldifst.arcsort(lexicon, sort_type="olabel")

    def add_to_grammar(self, grammar: kaldifst.StdVectorFst) -> None:
        """Let G accept it as a unigram, without a word at the output."""
        backoff = self.lang.word_ids_by_name["#0"]
        state, following = -1, grammar.start
        while following >= 0:
            state, following = following, _target(grammar, following, backoff)
        grammar.add_arc(state, kaldifst.StdArc(self.word, 0, self.cost, state))
        kaldifst.arcsort(grammar, sort_type="ilabel")

    def take_from_contexts(
        self, clg: kaldifst.StdVectorFst, contexts: Sequence[Sequence[int]]
    ) -> tuple[kaldifst.StdVectorFst, list[list[int]], dict[int, Slot]]:
        """Let the phones around it be next to its first and last phone, as in words.

        Args:
            clg, contexts: C ∘ L ∘ G, and the triphones that its input labels stand for.

        Returns:
            C ∘ L ∘ G; what its labels stand for, which is a disambiguation symbol for slots; and the labels of slots.
        """
        real = {**self._first, **self._last}
        windows = [list(window) for window in contexts]
        pairs: list[tuple[int, int]] = []
        labels: dict[tuple[int, ...], int] = {}
        slots: dict[Slot, int] = {}
        for label, window in enumerate(windows):
            if not window:
                continue
            heard = tuple(real.get(phone, phone) for phone in window)
            centre = window[1] if len(window) == 3 else 0
            if centre == self.gap:
                windows[label] = [-self.gap]
                pairs.append((0, label))
            elif centre in real:
                begins = centre in self._first
                windows[label] = [-centre]
                pairs.append((slots.setdefault(Slot(begins, *(heard[:2] if begins else heard[1:])), label), label))
            else:
                windows[label] = list(heard)
                pairs.append((labels.setdefault(heard, label), label))
        return relabel(clg, pairs), windows, {label: slot for slot, label in slots.items()}


def _target(fst: kaldifst.StdVectorFst, state: int, label: int) -> int:
    """Where the arc with an input label leads; −1 if there is none."""
    arcs = kaldifst.ArcIterator(fst, state)
    while not arcs.done:
        if arcs.value.ilabel == label:
            return int(arcs.value.nextstate)
        arcs.next()
    return -1


class SlotArc(NamedTuple):
    """An arc of a slot, taken out of HCLG, with the word and the cost that it has there."""

    slot: Slot
    source: int
    target: int
    word: int
    cost: float


def take_out(hclg: kaldifst.StdVectorFst, slots: Sequence[Slot], first: int) -> list[SlotArc]:
    """Remove the arcs of slots, whose input labels begin with ``first``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "HCLG.fst")
        write_fst(path, hclg)  # to look at each arc by kaldifst takes longer
        arcs, costs = find_arcs(path, first)
    for source, count in zip(*np.unique(arcs[:, 0], return_counts=True), strict=True):
        hclg.delete_arcs(int(source), int(count))  # the last ones, since arcs are sorted
    return [
        SlotArc(slots[label - first], source, target, word, round(cost, 4))
        for (source, target, label, word), cost in zip(arcs.tolist(), costs.tolist(), strict=True)
    ]


def slot_table(
    lang: Lang,
    tree: Node,
    transitions: Transitions,
    arcs: Sequence[SlotArc],
    self_loop_scale: float,
) -> dict[str, Any]:
    """What ``asr_kd.hmm.new_words`` needs to put words in."""
    topologies: dict[tuple[int, ...], list[str]] = {}
    for phone in lang.real_phones:
        topologies.setdefault(_pdf_classes(transitions.model, phone), []).append(lang.phones[phone])
    nodes: dict[tuple[Any, ...], int] = {}
    root = _intern(tree, nodes)
    sets = {node[1]: None for node in nodes if node[0] == "question"}
    numbers = {own: number for number, own in enumerate(sets)}
    return {
        "begins": [[*arc.slot[1:], *arc[1:]] for arc in arcs if arc.slot.begins],
        "ends": [[*arc.slot[1:], *arc[1:]] for arc in arcs if not arc.slot.begins],
        "phones": {lang.phones[phone]: phone for phone in lang.real_phones},
        "pause": SILENCE[0] if _is_chain(transitions.model, lang.phone_ids[SILENCE[0]]) else "",
        "guesses": lang.guesses,
        "positions": bool(lang.positions),
        "topologies": [[names, classes] for classes, names in topologies.items()],
        "loops": _loop_probabilities(transitions).round(4).tolist(),
        "self_loop_scale": self_loop_scale,
        "sets": [sorted(own) for own in sets],
        "nodes": [[node[0], numbers[node[1]], *node[2:]] if node[0] == "question" else list(node) for node in nodes],
        "root": root,
    }


def _pdf_classes(model: kaldi_hmm_gmm.TransitionModel, phone: int) -> tuple[int, ...]:
    """The pdf-class of each state of a phone."""
    entry = model.topo.topology_for_phone(phone)
    return tuple(state.forward_pdf_class for state in entry[:-1])


def _loop_probabilities(transitions: Transitions) -> np.ndarray:
    """The probability (C,) of staying in a state with a pdf, the mean over the phones that share it."""
    model = transitions.model
    ids = [i for i in range(1, model.num_transition_ids + 1) if model.is_self_loop(i)]
    pdfs, values = transitions.pdf[ids], np.exp(np.asarray(model.log_probs)[ids])
    probabilities: np.ndarray = np.bincount(pdfs, values, model.num_pdfs) / np.bincount(pdfs, None, model.num_pdfs)
    return probabilities


def _intern(node: Node | None, nodes: dict[tuple[Any, ...], int]) -> int | None:
    """The number of a node among the different ones; a file of Kaldi repeats those that phones share."""
    key: tuple[Any, ...]
    if node is None:
        return None
    if node.leaf is not None:
        key = ("leaf", node.leaf)
    elif node.table is not None:
        key = ("table", node.key, *(_intern(own, nodes) for own in node.table))
    else:
        key = ("question", node.yes_set, node.key, _intern(node.yes, nodes), _intern(node.no, nodes))
    return nodes.setdefault(key, len(nodes))
