"""Words with the fewest expected errors, and confidences: minimum Bayes risk over a lattice.

Xu, Povey, Mangu, Zhu: Minimum Bayes Risk decoding and system combination based on a recursion for edit distance
(Computer Speech and Language 25, 2011); the equations are those of Kaldi's sausages.cc.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from graphlib import TopologicalSorter

import kaldifst
import numpy as np

from asr_kd.decode.lattices import prune
from asr_kd.decode.worker import Lattice

#: Penalty of a word that is aligned with none, beyond 1: of equal alignments, the one with fewer such words is used.
GAP = 1e-5
#: States of a lattice of words; above it, the least probable paths are pruned.
MAX_STATES = 20_000
ROUNDS = 100


@dataclasses.dataclass
class WordArc:
    """A word of a lattice of words, or 0 for none.

    Attributes:
        source, target: states; they are numbered so that source < target.
        word: id of the word.
        share: probability of the arc among those into its target, given the lattice.
    """

    source: int
    target: int
    word: int
    share: float


def word_lattice(lattice: Lattice, scores: np.ndarray, beam: float) -> list[WordArc]:
    """Every sequence of words of a lattice once, with the score of its best path, as arcs sorted by target.

    Args:
        lattice: as the search or the rescoring returns it.
        scores: of its arcs, (N,).
        beam: paths more than this below the best one are pruned.

    Returns:
        the arcs between the states 0, where all paths start, and the last target, where they end.
    """
    return _shares(word_acceptor(prune(dataclasses.replace(lattice, scores=scores[:, None]), scores, beam)))


def word_acceptor(lattice: Lattice) -> kaldifst.StdVectorFst:
    """A deterministic acceptor of the words of a lattice with scores (N, 1); costs are those of the best paths."""
    final = int(lattice.arcs[-1, 1])
    lines, extra = [], final + 1
    for number, (source, target, _) in enumerate(lattice.arcs.tolist()):
        words = lattice.words[lattice.row_splits[number] : lattice.row_splits[number + 1]].tolist() or [0]
        for word in words[:-1]:
            lines.append(f"{source} {extra} {word}")
            source, extra = extra, extra + 1
        lines.append(f"{source} {target} {words[-1]} {-lattice.scores[number, 0]:.7g}")
    fst = kaldifst.compile("\n".join([*lines, f"{final} 0", ""]), acceptor=True)
    kaldifst.rmepsilon(fst)
    return kaldifst.determinize(fst, nstate=MAX_STATES)


def _shares(fst: kaldifst.StdVectorFst) -> list[WordArc]:
    """The arcs of an acyclic acceptor between states in topological order; arcs of word 0 lead into one final state."""
    arcs = [
        (state, arc.nextstate, arc.ilabel, -arc.weight.value)
        for state in range(fst.num_states) for arc in kaldifst.ArcIterator(fst, state)
    ]  # fmt: skip
    finals = [(state, -fst.final(state).value) for state in range(fst.num_states)]
    arcs += [(state, fst.num_states, 0, score) for state, score in finals if np.isfinite(score)]
    before: dict[int, set[int]] = {fst.start: set(), fst.num_states: set()}
    for source, target, _, _ in arcs:
        before.setdefault(target, set()).add(source)
    numbers = {state: number for number, state in enumerate(TopologicalSorter(before).static_order())}
    arcs = sorted((numbers[source], numbers[target], word, score) for source, target, word, score in arcs)
    arcs.sort(key=lambda arc: arc[1])
    total = np.full(len(numbers), -np.inf)
    total[0] = 0
    for source, target, _, score in arcs:
        total[target] = np.logaddexp(total[target], total[source] + score)
    return [WordArc(a, b, word, float(np.exp(total[a] + score - total[b]))) for a, b, word, score in arcs]


class Risk:
    """The expected number of word errors of a hypothesis, by the recursion over the arcs of a lattice.

    Between any two words of the hypothesis, and at its ends, is an empty place (word 0), where words of the lattice may
    be aligned, too; so the places may become words, or empty.

    Args:
        arcs: from ``word_lattice``.
        words: the hypothesis.

    Attributes:
        places: the Q words and empty places.
        expected: the expected errors.
        posteriors: for each place, the probability of every word that is aligned with it, or 0 for none.
    """

    def __init__(self, arcs: Sequence[WordArc], words: Sequence[int]) -> None:
        self.places = np.zeros(2 * len(words) + 1, np.int64)
        self.places[1::2] = words
        self._gaps = np.concatenate([[0], np.cumsum(self.places != 0)])  # errors without a word, up to each place
        self.arcs = arcs
        self.posteriors: list[dict[int, float]] = [defaultdict(float) for _ in self.places]
        errors = np.zeros((arcs[-1].target + 1, len(self.places) + 1))
        errors[0] = self._gaps
        for arc in arcs:
            errors[arc.target] += arc.share * self._errors(errors[arc.source], arc.word)[0]
        self.expected = float(errors[-1, -1])
        self._align(errors)

    def _errors(self, before: np.ndarray, word: int) -> tuple[np.ndarray, np.ndarray]:
        """Errors after an arc up to each place, given those before; and how: 1 aligned, 2 word alone, 3 place alone."""
        alone = before + (1 + GAP if word else 0)
        aligned = np.full(len(before), np.inf)
        aligned[1:] = before[:-1] + (self.places != word)
        straight = np.minimum(aligned, alone)
        errors = np.minimum.accumulate(straight - self._gaps) + self._gaps
        return errors, np.where(errors < straight - 1e-9, 3, np.where(aligned <= alone, 1, 2))

    def _align(self, errors: np.ndarray) -> None:
        """Go back from the end with the probability of every alignment, and fill ``posteriors``."""
        mass = np.zeros_like(errors)
        mass[-1, -1] = 1
        for arc in reversed(self.arcs):
            how = self._errors(errors[arc.source], arc.word)[1]
            arriving = arc.share * mass[arc.target]
            for place in np.flatnonzero(arriving)[::-1].tolist():
                self._pass_on(mass[arc.source], arc.word, how, place, arriving[place])
        for place in range(len(self.places), 0, -1):
            self.posteriors[place - 1][0] += mass[0, place]
            mass[0, place - 1] += mass[0, place]

    def _pass_on(self, mass: np.ndarray, word: int, how: np.ndarray, place: int, share: float) -> None:
        """Move a share of an arc's probability, which ended after ``place`` places, to where the arc begins."""
        while how[place] == 3:
            self.posteriors[place - 1][0] += share
            place -= 1
        if how[place] == 1:
            self.posteriors[place - 1][word] += share
            place -= 1
        mass[place] += share

    def confidences(self) -> list[float]:
        """The probability of each word of the hypothesis at its place."""
        words = self.places[1::2].tolist()
        return [min(1.0, float(found[word])) for word, found in zip(words, self.posteriors[1::2], strict=True)]


def minimum_risk(arcs: Sequence[WordArc], words: Sequence[int]) -> tuple[list[int], list[float], float]:
    """The words with the fewest expected errors, found from those of the best path, until nothing changes.

    Args:
        arcs: from ``word_lattice``.
        words: of the best path.

    Returns:
        the words, their posterior probabilities (confidences), and their expected number of errors.
    """
    risk = Risk(arcs, words)
    for _ in range(ROUNDS):
        # A place keeps its word unless another one is more probable.
        chosen = [
            max(found, key=lambda word: (found[word], word == place))
            for place, found in zip(risk.places.tolist(), risk.posteriors, strict=True)
        ]
        if chosen == risk.places.tolist():
            break
        risk = Risk(arcs, [word for word in chosen if word])
    return [word for word in risk.places.tolist() if word], risk.confidences(), risk.expected
