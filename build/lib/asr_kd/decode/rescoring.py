"""Lattices with the weights of another n-gram model: composition by word histories, without a list of hypotheses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from asr_kd.decode.lattices import Frames, Group, prune
from asr_kd.decode.worker import Lattice
from asr_kd.lang.histories import Histories


@dataclass
class Tokens:
    """Partial paths through one lattice at one frame, merged where all that follows is the same: K of them.

    Attributes:
        states: of the lattice, (K,).
        old, new: histories of both models, (K,).
        score: of the best path so far, (K,).
    """

    states: np.ndarray
    old: np.ndarray
    new: np.ndarray
    score: np.ndarray


class Rescorer:
    """Exchanges the weights of the language model ``old`` in lattices for those of ``new``.

    Both are taken as the ARPA format defines them: an n-gram that is listed has its own probability, also where the
    back-off arcs of a graph would be cheaper.  This is Kaldi's lattice-lmrescore, but on lattices that keep every
    alignment, so that another acoustic scale can still be tried.
    """

    def __init__(self, old: Histories, new: Histories) -> None:
        self.old, self.new = old, new

    def __call__(self, lattice: Lattice, scale: float, penalty: float, beam: float, lattice_beam: float) -> Lattice:
        """The lattice with the new weights.

        Args:
            lattice: as the search returns it.
            scale: factor of the acoustic scores in the lattice.
            penalty: for each word.
            beam: histories more than this below the best one of the same frame are pruned; their score includes what
                follows, with the old weights.
            lattice_beam: arcs whose best path is more than this below the best one, first with the old weights and then
                with the new ones, are pruned.
        """
        lattice = prune(lattice, Frames(lattice).scores(scale, penalty), lattice_beam)
        frames = Frames(lattice)
        scores = frames.scores(scale, penalty)
        ahead = frames.totals(scores, best=True)[1]
        start = np.zeros(1, np.int64)
        tokens = Tokens(start, start + self.old.start, start + self.new.start, np.zeros(1))
        first, parts = 0, []  # the number of the first of ``tokens``, and arcs: source, target, arc and gain
        for group in frames.backward:
            owners, arcs = _expand(tokens, group)
            final = lattice.arcs[arcs, 2] == -1
            old, new, gains = self._step(frames, tokens, owners, arcs, final)
            reached = Tokens(
                frames.targets[arcs].astype(np.int64), old, new, tokens.score[owners] + scores[arcs] + gains
            )
            estimate = reached.score + ahead[reached.states]
            kept = np.flatnonzero(estimate >= estimate.max() - beam)
            merged, places = _merge(reached, kept)
            following = first + len(tokens.states)
            parts.append((first + owners[kept], following + places, arcs[kept], gains[kept]))
            tokens, first = merged, following
        sources, targets, arcs, gains = map(np.concatenate, zip(*parts, strict=True))
        composed = _lattice(lattice, sources, targets, arcs, gains)
        return prune(composed, Frames(composed).scores(scale, penalty), lattice_beam)

    def _step(
        self, frames: Frames, tokens: Tokens, owners: np.ndarray, arcs: np.ndarray, final: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The histories of both models after each arc, and what the arc gains by the new one."""
        old, new, gains = tokens.old[owners], tokens.new[owners], np.zeros(len(arcs))
        counts = frames.word_counts[arcs]
        for place in range(counts.max(initial=0)):
            rows = np.flatnonzero(counts > place)
            words = frames.lattice.words[frames.lattice.row_splits[arcs[rows]] + place].astype(np.int64)
            minus, old[rows] = self.old.step(old[rows], words)
            plus, new[rows] = self.new.step(new[rows], words)
            gains[rows] += plus - minus
        gains[final] += self.new.end(new[final]) - self.old.end(old[final])
        old[final] = new[final] = 0
        return old, new, gains


def _expand(tokens: Tokens, group: Group) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of a token and an arc that leaves its state: numbers of tokens and of arcs, sorted by token."""
    places = np.searchsorted(group.states, tokens.states)
    sizes, starts = group.sizes[places], group.starts[places]
    owners = np.repeat(np.arange(len(tokens.states)), sizes)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return owners, group.arcs[starts[owners] + within]


def _merge(reached: Tokens, kept: np.ndarray) -> tuple[Tokens, np.ndarray]:
    """The distinct tokens among those ``kept``, with the best score of each, and the place of each one among them."""
    keys = reached.states[kept], reached.old[kept], reached.new[kept]
    order = np.lexsort((reached.score[kept], *keys[::-1]))
    differs = np.ones(len(order), bool)
    differs[1:] = np.any([np.diff(key[order]) != 0 for key in keys], axis=0)
    places = np.empty(len(order), np.int64)
    places[order] = np.cumsum(differs) - 1
    best = kept[order[np.append(np.flatnonzero(differs[1:]), len(order) - 1)]]  # the last of the same is the best one
    return Tokens(reached.states[best], reached.old[best], reached.new[best], reached.score[best]), places


def _lattice(
    lattice: Lattice, sources: np.ndarray, targets: np.ndarray, arcs: np.ndarray, gains: np.ndarray
) -> Lattice:
    """A lattice of copies of ``arcs`` between other states, with graph scores that have gained."""
    scores = lattice.scores[arcs]
    scores[:, 0] += gains.astype(np.float32)
    counts = np.diff(lattice.row_splits)[arcs]
    row_splits = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    within = np.arange(row_splits[-1]) - np.repeat(row_splits[:-1], counts)
    words = lattice.words[np.repeat(lattice.row_splits[arcs], counts) + within]
    return Lattice(np.stack([sources, targets, lattice.arcs[arcs, 2]], 1).astype(np.int32), scores, words, row_splits)
