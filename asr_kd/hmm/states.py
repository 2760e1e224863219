"""The best path through the states of an utterance's words, frame by frame in NumPy."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class States:
    """States of an HMM without ways back, but for those from a state to itself; each frame is spent in one of them.

    Attributes:
        columns: (S,) the column of the scores that each state has.
        sources: (S, K) states from which each one is reached; the first is itself.
        entries: (S, K) log-probabilities of these steps; −inf where there is none.
        starts: (S,) log-probabilities of beginning in each state.
        ends: (S,) log-probabilities of ending in each state.
    """

    columns: np.ndarray
    sources: np.ndarray
    entries: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(
        cls, columns: list[int], steps: list[list[tuple[int, float]]], starts: dict[int, float], ends: dict[int, float]
    ) -> States:
        """States from lists.

        Args:
            columns: of each state.
            steps: for each state, those from which it is reached, which are before it, except that the first is the
                state itself; and the log-probabilities.
            starts, ends: log-probabilities of the states in which a path may begin and end.
        """
        count, width = len(columns), max(map(len, steps))
        sources = np.repeat(np.arange(count)[:, None], width, axis=1)
        entries = np.full((count, width), -np.inf)
        for state, own in enumerate(steps):
            sources[state, : len(own)] = [source for source, _ in own]
            entries[state, : len(own)] = [score for _, score in own]
        ways = np.full((2, count), -np.inf)
        for row, given in zip(ways, (starts, ends), strict=True):
            row[list(given)] = list(given.values())
        return cls(np.array(columns), sources, entries, *ways)


def best_path(states: States, blocks: Iterable[np.ndarray], beam: float) -> tuple[np.ndarray, float] | None:
    """The state of every frame (T,), and the score of that path; None if none survives.

    Only the states between the first and the last that survive are looked at, so that time and memory grow with the
    number of frames and not with that of the words.

    Args:
        states: S of them.
        blocks: scores (frames, C) of successive frames.
        beam: paths more than this below the best one of the same frame are pruned.
    """
    ahead = np.arange(len(states.columns))
    np.maximum.at(ahead, states.sources, np.arange(len(ahead))[:, None])
    ahead = np.maximum.accumulate(ahead) + 1
    score = np.full(len(ahead), -np.inf)
    kind = np.min_scalar_type(states.sources.shape[1])
    low, high = 0, len(ahead)
    chosen: list[np.ndarray] = []  # of each frame, which step led into each state, from the lowest one on
    lowest: list[int] = []
    for frame in (frame for block in blocks for frame in block):
        if not chosen:
            choice, new = np.zeros(high, kind), states.starts.copy()
        else:
            high = int(ahead[high - 1])
            options = score[states.sources[low:high]] + states.entries[low:high]
            choice = options.argmax(1)
            new = options[np.arange(high - low), choice]
        new += frame[states.columns[low:high]]
        new[new < new.max() - beam] = -np.inf
        alive = np.flatnonzero(new > -np.inf)
        if not len(alive):
            return None
        score[low:high] = new
        first, last = int(alive[0]), int(alive[-1]) + 1
        chosen.append(choice[first:last].astype(kind))
        lowest.append(low + first)
        low, high = low + first, low + last
    final = score + states.ends
    if not chosen or final.max() == -np.inf:
        return None
    path = np.empty(len(chosen), np.int64)
    state = int(final.argmax())
    for frame in reversed(range(len(path))):
        path[frame] = state
        state = int(states.sources[state, chosen[frame][state - lowest[frame]]])
    return path, float(final.max())
