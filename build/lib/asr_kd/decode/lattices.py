"""Best paths, posteriors and pruning of lattices, frame by frame in NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from asr_kd.decode.worker import Lattice


@dataclass
class Group:
    """The arcs of one frame, ordered by the states that they lead into, or from.

    Attributes:
        arcs: their numbers.
        starts: places of the first arc of each state.
        sizes: the number of arcs of each state.
        states: the states.
    """

    arcs: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    states: np.ndarray

    def sums(self, scores: np.ndarray) -> np.ndarray:
        """The logarithm of the sum of exp(``scores``) over the arcs of each state."""
        highest = np.maximum.reduceat(scores, self.starts)
        shifts = np.where(np.isfinite(highest), highest, 0)
        with np.errstate(divide="ignore"):
            return shifts + np.log(np.add.reduceat(np.exp(scores - np.repeat(shifts, self.sizes)), self.starts))


class Frames:
    """A lattice by frames: its arcs are sorted by source, its states numbered by frame, and each arc takes one frame.

    Args:
        lattice: as the search or ``prune`` returns it.

    Attributes:
        sources, targets: states of the arcs, (N,).
        num_states: number of states; the last one is final.
        word_counts: number of words of each arc, (N,).
        forward, backward: the arcs of each frame, ordered by target and by source.
    """

    def __init__(self, lattice: Lattice) -> None:
        self.lattice = lattice
        self.sources, self.targets = lattice.arcs[:, 0], lattice.arcs[:, 1]
        self.num_states = int(self.targets[-1]) + 1
        self.word_counts = np.diff(lattice.row_splits)
        bounds = list(itertools.pairwise(self._frame_bounds()))
        self.forward = _groups(self.targets, np.argsort(self.targets, kind="stable"), bounds)
        self.backward = _groups(self.sources, np.arange(len(self.sources)), bounds)

    def _frame_bounds(self) -> Iterator[int]:
        """The first arc of each frame, and the number of arcs."""
        first, state = 0, 1
        while first < len(self.sources):
            yield first
            last = int(np.searchsorted(self.sources, np.int32(state)))  # of the same type, or the array is converted
            reached = self.targets[first:last]
            if last == first or reached.min() < state:
                raise ValueError("the states of the lattice are not numbered by frame")
            first, state = last, int(reached.max()) + 1
        yield first

    def scores(self, scale: float, penalty: float) -> np.ndarray:
        """The score of each arc, (N,): ``scale`` is a factor of the acoustic scores as the lattice has them."""
        graph, acoustic = self.lattice.scores.astype(float).T
        return graph + scale * acoustic - penalty * self.word_counts

    def best_paths(self, scores: np.ndarray) -> np.ndarray:
        """The arcs (frames, P) of the best path for each of P scores of the arcs, (N, P)."""
        columns = np.arange(scores.shape[1])
        best = np.full((self.num_states, len(columns)), -np.inf, dtype=scores.dtype)
        arrived = np.zeros(best.shape, np.int32)
        best[0] = 0
        for group in self.forward:
            total = best[self.sources[group.arcs]] + scores[group.arcs]
            best[group.states] = highest = np.maximum.reduceat(total, group.starts)
            chosen = np.where(total == np.repeat(highest, group.sizes, axis=0), group.arcs[:, None], len(scores))
            arrived[group.states] = np.minimum.reduceat(chosen, group.starts)
        state = np.full(len(columns), self.num_states - 1)
        paths = np.empty((len(self.forward), len(columns)), np.int64)
        for path in paths[::-1]:
            path[:] = arrived[state, columns]
            state = self.sources[path]
        return paths

    def words(self, path: np.ndarray) -> list[int]:
        """The words on the arcs of a path."""
        splits = self.lattice.row_splits
        arcs = path[self.word_counts[path] > 0]
        return [int(word) for arc in arcs for word in self.lattice.words[splits[arc] : splits[arc + 1]]]

    def totals(self, scores: np.ndarray, best: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Scores from the start to each state, and from each state to the end: logarithms of sums over the paths.

        Args:
            scores: of the arcs, (N,).
            best: give the best path's score instead of the sum.
        """
        before, after = np.full((2, self.num_states), -np.inf)
        before[0] = after[-1] = 0
        add: Callable[[Group, np.ndarray], np.ndarray] = Group.sums
        if best:
            add = lambda group, values: np.maximum.reduceat(values, group.starts)  # noqa: E731
        for group in self.forward:
            before[group.states] = add(group, before[self.sources[group.arcs]] + scores[group.arcs])
        for group in reversed(self.backward):
            after[group.states] = add(group, scores[group.arcs] + after[self.targets[group.arcs]])
        return before, after


def _groups(states: np.ndarray, order: np.ndarray, bounds: Sequence[tuple[int, int]]) -> list[Group]:
    ordered = states[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    sizes, reached = np.diff(starts, append=len(order)), ordered[starts]
    places = np.searchsorted(starts, [0, *(last for _, last in bounds)])
    return [
        Group(order[first:last], starts[a:b] - first, sizes[a:b], reached[a:b])
        for (first, last), (a, b) in zip(bounds, itertools.pairwise(places.tolist()), strict=True)
    ]


def prune(lattice: Lattice, scores: np.ndarray, beam: float) -> Lattice:
    """The arcs whose best path has a score at most ``beam`` below that of the best path of all.

    Args:
        scores: of the arcs, (N,).
    """
    frames = Frames(lattice)
    before, after = frames.totals(scores, best=True)
    through = before[frames.sources] + scores + after[frames.targets]
    kept = through >= before[-1] - beam - 1e-9 * abs(before[-1])
    return select(lattice, kept)


def select(lattice: Lattice, kept: np.ndarray) -> Lattice:
    """The arcs that a mask (N,) keeps, between states numbered anew; every one must be on a path of kept arcs."""
    arcs = lattice.arcs[kept]
    used = np.unique(arcs[:, :2])
    renumbered = np.zeros(int(used[-1]) + 1, np.int32)
    renumbered[used] = np.arange(len(used))
    arcs[:, :2] = renumbered[arcs[:, :2]]
    counts = np.diff(lattice.row_splits)
    row_splits = np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int32)
    return Lattice(arcs, lattice.scores[kept], lattice.words[np.repeat(kept, counts)], row_splits)
