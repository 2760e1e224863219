"""Where the words of an utterance are, given its lattice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from asr_kd.decode.lattices import Frames
from asr_kd.hmm.word_times import WordFinder

#: Frames whose posteriors are in memory at once.
BLOCK = 1000


def word_times(finder: WordFinder, frames: Frames, scores: np.ndarray, words: Sequence[int]) -> list[tuple[int, int]]:
    """The first frame of each word, and the one after its last.

    Args:
        finder: has the pronunciations.
        frames: the lattice.
        scores: of its arcs, (N,).
        words: ids of words or pieces, of a path or others.

    Raises:
        ValueError: a word has no pronunciation, or the words are longer than the utterance.
    """
    before, after = frames.totals(scores)
    posteriors = np.exp(before[frames.sources] + scores + after[frames.targets] - before[-1])
    pdfs, groups = frames.lattice.arcs[:, 2] - 1, frames.backward[:-1]  # the last arcs take no frame
    bounds = np.cumsum([0, *(len(group.arcs) for group in groups)])
    width = max(finder.num_pdfs, int(pdfs.max()) + 1)

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(groups), BLOCK):
            stop = min(start + BLOCK, len(groups))
            arcs = slice(bounds[start], bounds[stop])
            block = np.zeros((stop - start, width), np.float32)
            rows = np.repeat(np.arange(stop - start), np.diff(bounds[start : stop + 1]))
            np.add.at(block, (rows, pdfs[arcs]), posteriors[arcs])
            yield block

    return finder.find(words, blocks)
