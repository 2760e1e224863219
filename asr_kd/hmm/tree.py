"""Phonetic decision trees: questions learnt by clustering phones, leaves split by likelihood gain.

A tree maps (left, centre, right phone; pdf-class) to a pdf.  Speech grows from one root with questions about
all four, so that any number of leaves is possible and rare phones find their neighbours; phones of silence
have leaves of their own, whatever the context.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

PDF_CLASS = -1  # Kaldi's key for the pdf-class; 0, 1, 2 are the phones of the context
COLUMN = {0: 0, 1: 1, 2: 2, PDF_CLASS: 3}  # key -> column of ``ContextStats.contexts``
FLOOR = 0.01  # least variance of a leaf, relative to the variance of all frames


@dataclass
class Node:
    """A leaf (``leaf``), a question (``key`` in ``yes_set``?) or a table over the values of ``key``."""

    leaf: int | None = None
    key: int = PDF_CLASS
    yes_set: frozenset[int] = frozenset()
    yes: Node | None = None
    no: Node | None = None
    table: tuple[Node | None, ...] | None = None

    def lookup(self, context: Sequence[int]) -> int | None:
        """The pdf of (left, centre, right, pdf-class); None when the tree has no answer."""
        node: Node | None = self
        while node is not None and node.leaf is None:
            value = context[COLUMN[node.key]]
            if node.table is not None:
                node = node.table[value] if 0 <= value < len(node.table) else None
            else:
                node = node.yes if value in node.yes_set else node.no
        return node.leaf if node is not None else None


@dataclass
class ContextStats:
    """Gaussian statistics of every context seen.

    Attributes:
        contexts: (N, 4) int32 left, centre, right phone (0: none) and pdf-class; distinct, sorted.
        stats: (N, 1 + 2D) float64 frames, sum of x, sum of x².
    """

    contexts: np.ndarray
    stats: np.ndarray

    @classmethod
    def collect(cls, contexts: np.ndarray, frames: np.ndarray) -> ContextStats:
        """From the context (T, 4) of each of the frames (T, D)."""
        wide = frames.astype(np.float64)
        return cls.merge([cls(contexts, np.hstack([np.ones((len(wide), 1)), wide, wide**2]))])

    @classmethod
    def merge(cls, parts: Iterable[ContextStats]) -> ContextStats:
        chosen = list(parts)
        contexts = np.concatenate([p.contexts for p in chosen])
        order = np.lexsort(contexts.T[::-1])
        contexts = contexts[order]
        new = np.ones(len(contexts), bool)
        new[1:] = np.any(contexts[1:] != contexts[:-1], axis=1)
        stats = np.concatenate([p.stats for p in chosen])[order]
        return cls(contexts[new], np.add.reduceat(stats, np.flatnonzero(new), axis=0))


def log_likelihood(stats: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Log-likelihood (…) of frames under one Gaussian of theirs, from stats (…, 1 + 2D) and variance floor (D,)."""
    dim = len(floor)
    count = np.maximum(stats[..., :1], 1e-10)
    variance = stats[..., 1 + dim :] / count - (stats[..., 1 : 1 + dim] / count) ** 2
    logs = np.log(np.maximum(variance, floor)).sum(-1)
    return -0.5 * stats[..., 0] * (logs + dim * (1 + np.log(2 * np.pi)))


def variance_floor(total: np.ndarray) -> np.ndarray:
    """(D,) from the statistics of all frames (1 + 2D,)."""
    dim = (len(total) - 1) // 2
    return FLOOR * (total[1 + dim :] / total[0] - (total[1 : 1 + dim] / total[0]) ** 2)


def phone_questions(stats: ContextStats, speech: Sequence[int]) -> list[frozenset[int]]:
    """Sets of speech phones, by merging the two acoustically closest again and again.

    Every cluster on the way from single phones to all of them is a question; each pdf-class has its own
    way, since onsets of phones are alike in other respects than their ends.
    """
    floor = variance_floor(stats.stats.sum(0))
    questions = {frozenset([phone]) for phone in speech}
    for pdf_class in np.unique(stats.contexts[:, 3]):
        sets = [frozenset([phone]) for phone in speech]
        sums = np.stack(
            [stats.stats[(stats.contexts[:, 1] == p) & (stats.contexts[:, 3] == pdf_class)].sum(0) for p in speech]
        )
        while len(sets) > 2:
            own = log_likelihood(sums, floor)
            loss = own[:, None] + own[None] - log_likelihood(sums[:, None] + sums[None], floor)
            loss[np.tril_indices(len(sets))] = np.inf
            i, j = np.unravel_index(int(np.argmin(loss)), loss.shape)
            sets[i] |= sets[j]
            sums[i] += sums[j]
            del sets[j]
            sums = np.delete(sums, j, axis=0)
            questions.add(sets[i])
    return sorted((q for q in questions if len(q) < len(speech)), key=lambda q: (len(q), sorted(q)))


class _Leaf:
    """A leaf that may still be split: its contexts, and the best question about them."""

    def __init__(self, node: Node, stats: ContextStats, grower: _Grower) -> None:
        self.node, self.stats, self.gain = node, stats, 0.0
        total = stats.stats.sum(0)
        before = log_likelihood(total, grower.floor)
        for key, questions in grower.questions.items():
            values = stats.contexts[:, COLUMN[key]]
            by_value = np.zeros((grower.membership[key].shape[1], len(total)))
            np.add.at(by_value, values, stats.stats)
            yes = grower.membership[key] @ by_value  # (questions, 1 + 2D)
            no = total - yes
            gains = log_likelihood(yes, grower.floor) + log_likelihood(no, grower.floor) - before
            gains[np.minimum(yes[:, 0], no[:, 0]) < grower.min_frames] = -np.inf
            best = int(np.argmax(gains))
            if gains[best] > self.gain:
                self.gain, self.key, self.question = float(gains[best]), key, questions[best]


class _Grower:
    def __init__(
        self, floor: np.ndarray, questions: dict[int, list[frozenset[int]]], min_frames: float, size: int
    ) -> None:
        self.floor, self.questions, self.min_frames = floor, questions, min_frames
        self.membership = {
            key: np.array([[float(v in q) for v in range(size)] for q in sets]) for key, sets in questions.items()
        }

    def grow(self, stats: ContextStats, leaves: int) -> tuple[Node, float]:
        """Split the leaf with the largest gain until there are ``leaves``, or nothing more to gain."""
        root = Node()
        heap: list[tuple[float, int, _Leaf]] = []
        number, gain = 0, 0.0

        def add(node: Node, part: ContextStats) -> None:
            nonlocal number
            leaf = _Leaf(node, part, self)
            if leaf.gain > 0:
                heapq.heappush(heap, (-leaf.gain, number, leaf))
            number += 1

        add(root, stats)
        count = 1
        while count < leaves and heap:
            _, _, leaf = heapq.heappop(heap)
            gain += leaf.gain
            node = leaf.node
            node.key, node.yes_set, node.yes, node.no = leaf.key, leaf.question, Node(), Node()
            mask = np.isin(leaf.stats.contexts[:, COLUMN[leaf.key]], sorted(leaf.question))
            for child, chosen in ((node.yes, mask), (node.no, ~mask)):
                add(child, ContextStats(leaf.stats.contexts[chosen], leaf.stats.stats[chosen]))
            count += 1
        return root, gain


@dataclass
class Tree:
    """A tree grown from statistics.

    Attributes:
        root: for ``kaldi_io.tree_bytes``.
        num_pdfs: leaves, silence's among them (they come first).
        silence_pdfs: the leaves of the silence phones.
        gain: log-likelihood per frame that splitting won.
        questions: the phone sets that were learnt.
    """

    root: Node
    num_pdfs: int
    silence_pdfs: list[int]
    gain: float
    questions: list[frozenset[int]]


def build_tree(
    stats: ContextStats,
    phones: Sequence[int],
    silence_phones: Sequence[int],
    pdf_classes: dict[int, int],
    leaves: int,
    min_frames: float = 50,
) -> Tree:
    """Grow a tree with at most ``leaves`` leaves.

    Args:
        stats: of all frames, silence included.
        phones: all phone ids.
        silence_phones: those of silence and noise; one with fewer than ``min_frames`` frames shares the first's
            leaves, since nothing can be learnt about it.
        pdf_classes: phone -> number of pdf-classes.
        leaves: how many, silence's included.
        min_frames: frames that a leaf must have.

    Raises:
        ValueError: ``leaves`` leaves none for speech.
    """
    root_of: dict[int, Node] = {}
    silence_pdfs = 0
    for phone in silence_phones:
        frames = stats.stats[stats.contexts[:, 1] == phone, 0].sum()
        if root_of and frames < min_frames and pdf_classes[phone] == pdf_classes[silence_phones[0]]:
            root_of[phone] = root_of[silence_phones[0]]
            continue
        number = pdf_classes[phone]
        own = tuple(Node(leaf=silence_pdfs + i) for i in range(number))
        root_of[phone] = own[0] if number == 1 else Node(key=PDF_CLASS, table=own)
        silence_pdfs += number
    if leaves <= silence_pdfs:
        raise ValueError(f"{leaves} leaves are too few: silence alone has {silence_pdfs}")

    speech = [p for p in phones if p not in root_of]
    spoken = np.isin(stats.contexts[:, 1], speech)
    mine = ContextStats(stats.contexts[spoken], stats.stats[spoken])
    learnt = phone_questions(mine, speech)
    # Outside an utterance (0) there is silence.
    around = [*learnt, frozenset([0, *silence_phones]), *(frozenset([p]) for p in silence_phones)]
    questions = {PDF_CLASS: [frozenset([0]), frozenset([1]), frozenset([2])], 1: learnt, 0: around, 2: around}
    grower = _Grower(variance_floor(mine.stats.sum(0)), questions, min_frames, max(phones) + 1)
    speech_root, gain = grower.grow(mine, leaves - silence_pdfs)
    root_of.update(dict.fromkeys(speech, speech_root))
    total = _number_leaves(speech_root, silence_pdfs)
    table = tuple(root_of.get(phone) for phone in range(max(phones) + 1))
    root = Node(key=1, table=table)
    return Tree(root, total, list(range(silence_pdfs)), gain / mine.stats[:, 0].sum(), learnt)


def _number_leaves(node: Node, number: int) -> int:
    """Give the leaves below ``node`` their numbers from ``number`` on, left to right; returns the next one."""
    if node.yes is None or node.no is None:
        node.leaf = number
        return number + 1
    return _number_leaves(node.no, _number_leaves(node.yes, number))


def monophone_tree(phones: Sequence[int], pdf_classes: dict[int, int]) -> Node:
    """One leaf per phone and pdf-class, whatever the context."""
    table: list[Node | None] = [None] * (max(phones) + 1)
    number = 0
    for phone in phones:
        table[phone] = Node(key=PDF_CLASS, table=tuple(Node(leaf=number + i) for i in range(pdf_classes[phone])))
        number += pdf_classes[phone]
    return Node(key=1, table=tuple(table))
