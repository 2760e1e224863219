"""Phonetic decision trees for state tying: data-driven questions, greedy splits by likelihood gain.

A tree maps (left, centre, right phone; pdf-class) to a pdf.  All speech phones share one root with questions about
all four, so that any number of leaves is possible and rare phones share leaves with similar ones.  Silence phones
have context-independent leaves of their own.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

PDF_CLASS = -1  # Kaldi's key of the pdf-class; the keys 0, 1, 2 are the left, centre and right phone
COLUMN = {0: 0, 1: 1, 2: 2, PDF_CLASS: 3}  # key -> column of ``ContextStats.contexts``
VARIANCE_FLOOR = 0.01  # relative to the global variance
#: A leaf is split if that raises the log-likelihood of its frames by this much (Kaldi's --thresh): little data gets
#: fewer leaves than it is allowed.
MIN_GAIN = 300.0


@dataclass(frozen=True)
class PhoneSets:
    """Phones by kind.

    Attributes:
        silence: ids of silence and noise; one with fewer frames than a leaf must have is too rare to train and shares
            the leaves of the first one.
        alike: the ids of speech phones in sets of those that differ in their position within a word alone, or each by
            itself.
        positions: sets of the ids of all speech phones in one position, if they differ in it.
    """

    silence: Sequence[int]
    alike: Sequence[frozenset[int]]
    positions: Sequence[frozenset[int]] = ()


@dataclass
class Node:
    """A leaf (``leaf``), a question (is ``key`` in ``yes_set``?) or a table indexed by ``key``."""

    leaf: int | None = None
    key: int = PDF_CLASS
    yes_set: frozenset[int] = frozenset()
    yes: Node | None = None
    no: Node | None = None
    table: tuple[Node | None, ...] | None = None

    def lookup(self, context: Sequence[int]) -> int | None:
        """Return the pdf of (left, centre, right, pdf-class); None if the tree does not define it."""
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
    """Sufficient statistics of a single Gaussian for each triphone state in the training data.

    Attributes:
        contexts: (N, 4) int32: left, centre, right phone (0: utterance boundary) and pdf-class; unique, sorted.
        stats: (N, 1 + 2D) float64: number of frames, sum of x, sum of x².
    """

    contexts: np.ndarray
    stats: np.ndarray

    @classmethod
    def collect(cls, contexts: np.ndarray, frames: np.ndarray) -> ContextStats:
        """Accumulate frames (T, D) with their contexts (T, 4)."""
        frames = frames.astype(np.float64)
        return cls.merge([cls(contexts, np.hstack([np.ones((len(frames), 1)), frames, frames**2]))])

    @classmethod
    def merge(cls, parts: Iterable[ContextStats]) -> ContextStats:
        """Return the sum of several statistics."""
        parts = list(parts)
        contexts = np.concatenate([part.contexts for part in parts])
        order = np.lexsort(contexts.T[::-1])
        contexts = contexts[order]
        new = np.ones(len(contexts), bool)
        new[1:] = np.any(contexts[1:] != contexts[:-1], axis=1)
        stats = np.concatenate([part.stats for part in parts])[order]
        return cls(contexts[new], np.add.reduceat(stats, np.flatnonzero(new), axis=0))


def log_likelihood(stats: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Log-likelihood (…) of frames under their own maximum-likelihood Gaussian.

    Args:
        stats: (…, 1 + 2D) sufficient statistics of the frames.
        floor: (D,) variance floor.
    """
    dim = len(floor)
    count = np.maximum(stats[..., :1], 1e-10)
    variance = stats[..., 1 + dim :] / count - (stats[..., 1 : 1 + dim] / count) ** 2
    logs = np.log(np.maximum(variance, floor)).sum(-1)
    return -0.5 * stats[..., 0] * (logs + dim * (1 + np.log(2 * np.pi)))


def variance_floor(total: np.ndarray) -> np.ndarray:
    """Variance floor (D,) from the sufficient statistics (1 + 2D,) of all frames."""
    dim = (len(total) - 1) // 2
    return VARIANCE_FLOOR * (total[1 + dim :] / total[0] - (total[1 : 1 + dim] / total[0]) ** 2)


def phone_questions(stats: ContextStats, alike: Sequence[frozenset[int]]) -> list[frozenset[int]]:
    """Return the sets of speech phones that the tree asks about, found by bottom-up clustering of sets of them.

    The two closest clusters (smallest loss of likelihood) are merged repeatedly; every cluster on the way is a
    question.  Each pdf-class is clustered separately, since phones with similar onsets can have different ends.
    """
    floor = variance_floor(stats.stats.sum(0))
    questions = set(alike)
    for pdf_class in np.unique(stats.contexts[:, 3]):
        sets, rows = list(alike), stats.contexts[:, 3] == pdf_class
        sums = np.stack([stats.stats[rows & np.isin(stats.contexts[:, 1], sorted(own))].sum(0) for own in sets])
        while len(sets) > 2:
            likelihoods = log_likelihood(sums, floor)
            loss = likelihoods[:, None] + likelihoods[None] - log_likelihood(sums[:, None] + sums[None], floor)
            loss[np.tril_indices(len(sets))] = np.inf
            i, j = np.unravel_index(int(np.argmin(loss)), loss.shape)
            sets[i] |= sets[j]
            sums[i] += sums[j]
            del sets[j]
            sums = np.delete(sums, j, axis=0)
            questions.add(sets[i])
    everything = frozenset().union(*alike)
    return sorted(questions - {everything}, key=lambda q: (len(q), sorted(q)))


class _Leaf:
    """A leaf that may still be split, with the question of the highest likelihood gain."""

    def __init__(self, node: Node, stats: ContextStats, grower: _TreeGrower) -> None:
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
            argmax = int(np.argmax(gains))
            if gains[argmax] > self.gain:
                self.gain, self.key, self.question = float(gains[argmax]), key, questions[argmax]


class _TreeGrower:
    """Grows a tree greedily.

    Args:
        floor: (D,) variance floor.
        questions: phone sets (or pdf-classes) to ask about, per key.
        min_frames: minimum number of frames of a leaf.
        min_gain: minimum gain in log-likelihood of a split.
        size: number of values that a key can have.
    """

    def __init__(
        self, floor: np.ndarray, questions: dict[int, list[frozenset[int]]], min_frames: float, min_gain: float,
        size: int,
    ) -> None:  # fmt: skip
        self.floor, self.questions, self.min_frames, self.min_gain = floor, questions, min_frames, min_gain
        self.membership = {
            key: np.array([[float(v in q) for v in range(size)] for q in sets]) for key, sets in questions.items()
        }

    def grow(self, stats: ContextStats, leaves: int) -> tuple[Node, float]:
        """Split the leaf with the highest gain until there are ``leaves``; returns the root and the total gain."""
        root = Node()
        heap: list[tuple[float, int, _Leaf]] = []
        number, total_gain = 0, 0.0

        def push(node: Node, stats: ContextStats) -> None:
            nonlocal number
            leaf = _Leaf(node, stats, self)
            if leaf.gain > self.min_gain:
                heapq.heappush(heap, (-leaf.gain, number, leaf))
            number += 1

        push(root, stats)
        count = 1
        while count < leaves and heap:
            _, _, leaf = heapq.heappop(heap)
            total_gain += leaf.gain
            node = leaf.node
            node.key, node.yes_set, node.yes, node.no = leaf.key, leaf.question, Node(), Node()
            mask = np.isin(leaf.stats.contexts[:, COLUMN[leaf.key]], sorted(leaf.question))
            for child, rows in ((node.yes, mask), (node.no, ~mask)):
                push(child, ContextStats(leaf.stats.contexts[rows], leaf.stats.stats[rows]))
            count += 1
        return root, total_gain


@dataclass
class Tree:
    """A grown tree.

    Attributes:
        root: its root, as ``kaldi_io.tree_bytes`` takes it.
        num_pdfs: number of leaves, including silence, whose leaves come first.
        silence_pdfs: the leaves of the silence phones.
        gain: gain in log-likelihood per speech frame.
        questions: the phone sets found by clustering.
    """

    root: Node
    num_pdfs: int
    silence_pdfs: list[int]
    gain: float
    questions: list[frozenset[int]]


def build_tree(
    stats: ContextStats,
    phones: PhoneSets,
    pdf_classes: dict[int, int],
    leaves: int,
    min_frames: float = 50,
    min_gain: float = MIN_GAIN,
) -> Tree:
    """Grow a tree with at most ``leaves`` leaves.

    Args:
        stats: statistics of all frames, including silence.
        phones: the phones.
        pdf_classes: number of pdf-classes per phone.
        leaves: maximum number of leaves, including silence.
        min_frames: minimum number of frames of a leaf.
        min_gain: minimum gain in log-likelihood of a split.

    Raises:
        ValueError: ``leaves`` does not exceed the number of silence leaves.
    """
    root_of: dict[int, Node] = {}
    silence_pdfs = 0
    for phone in phones.silence:
        frames = stats.stats[stats.contexts[:, 1] == phone, 0].sum()
        if root_of and frames < min_frames and pdf_classes[phone] == pdf_classes[phones.silence[0]]:
            root_of[phone] = root_of[phones.silence[0]]
            continue
        number = pdf_classes[phone]
        nodes = tuple(Node(leaf=silence_pdfs + i) for i in range(number))
        root_of[phone] = nodes[0] if number == 1 else Node(key=PDF_CLASS, table=nodes)
        silence_pdfs += number
    if leaves <= silence_pdfs:
        raise ValueError(f"{leaves} leaves are too few: silence alone has {silence_pdfs}")

    speech = sorted(frozenset().union(*phones.alike))
    rows = np.isin(stats.contexts[:, 1], speech)
    speech_stats = ContextStats(stats.contexts[rows], stats.stats[rows])
    clusters = [*phone_questions(speech_stats, phones.alike), *phones.positions]
    # The utterance boundary (0) counts as silence.
    context = [*clusters, frozenset([0, *phones.silence]), *(frozenset([p]) for p in phones.silence)]
    questions = {PDF_CLASS: [frozenset([0]), frozenset([1]), frozenset([2])], 1: clusters, 0: context, 2: context}
    highest = max(*speech, *phones.silence)
    grower = _TreeGrower(variance_floor(speech_stats.stats.sum(0)), questions, min_frames, min_gain, highest + 1)
    speech_root, gain = grower.grow(speech_stats, leaves - silence_pdfs)
    root_of.update(dict.fromkeys(speech, speech_root))
    total = _number_leaves(speech_root, silence_pdfs)
    table = tuple(root_of.get(phone) for phone in range(highest + 1))
    root = Node(key=1, table=table)
    return Tree(root, total, list(range(silence_pdfs)), gain / speech_stats.stats[:, 0].sum(), clusters)


def _number_leaves(node: Node, number: int) -> int:
    """Number the leaves below ``node`` from ``number`` on, left to right; returns the next free number."""
    if node.yes is None or node.no is None:
        node.leaf = number
        return number + 1
    return _number_leaves(node.no, _number_leaves(node.yes, number))


def monophone_tree(phones: Sequence[int], pdf_classes: dict[int, int], alike: Sequence[frozenset[int]] = ()) -> Node:
    """A context-independent tree: one leaf per pdf-class of a phone, or of a set of phones that are alike."""
    table: list[Node | None] = [None] * (max(phones) + 1)
    number = 0
    first = {phone: min(own) for own in alike for phone in own}
    for phone in phones:
        if (same := first.get(phone, phone)) != phone:
            table[phone] = table[same]
            continue
        table[phone] = Node(key=PDF_CLASS, table=tuple(Node(leaf=number + i) for i in range(pdf_classes[phone])))
        number += pdf_classes[phone]
    return Node(key=1, table=tuple(table))
