"""Where the words of an utterance are: from the senones in its lattice and the pronunciations of the graph.

The word labels of a graph are not where words begin: determinisation and minimisation have moved them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.decode.lattices import Frames
from asr_kd.hmm.states import States, best_path
from asr_kd.lang.words import Words

#: Of a graph, in its folder.
PRONUNCIATIONS = "pronunciations.json"
#: Posterior of a state that a lattice does not have in a frame.
FLOOR = 1e-6
#: Beams of the search for the words; the last one finds words that no path of the lattice has.
BEAMS = (100.0, np.inf)
#: Frames whose posteriors are in memory at once.
BLOCK = 1000


class WordFinder:
    """Finds words in lattices.

    Args:
        graph: folder of the graph.

    Raises:
        UserError: the folder was made by a version that wrote no pronunciations.
    """

    def __init__(self, graph: Path) -> None:
        path = graph / PRONUNCIATIONS
        if not path.is_file():
            raise UserError(
                f"{path} is missing, and without pronunciations words have no times: compile the graph again "
                "(python -m asr_kd.hmm.graph), in another folder"
            )
        table = read_json(path)
        self._names, self._lexicon = Words(graph).names, table["lexicon"]
        groups: list[list[int]] = [table["silence"]]
        self._columns: dict[str, range] = {}
        for phone, states in table["phones"].items():
            self._columns[phone] = range(len(groups), len(groups) + len(states))
            groups += states
        self._pdfs = np.array([pdf for group in groups for pdf in group], np.int64)
        self._starts = np.cumsum([0, *map(len, groups[:-1])])

    def __call__(self, frames: Frames, scores: np.ndarray, words: Sequence[int]) -> list[tuple[int, int]]:
        """The first frame of each word, and the one after its last.

        Args:
            frames: the lattice.
            scores: of its arcs, (N,).
            words: ids of words or pieces, of a path or others.

        Raises:
            ValueError: a word has no pronunciation, or the words are longer than the utterance.
        """
        states, owners = self._states(words)
        paths = (best_path(states, self._scores(frames, scores), beam) for beam in BEAMS)
        found = next(filter(None, paths), None)
        if found is None:
            raise ValueError("its words are longer than it")
        owner = owners[found[0]]
        spoken = np.flatnonzero(owner >= 0)
        first, last = (np.searchsorted(owner[spoken], np.arange(len(words)), side) for side in ("left", "right"))
        return list(zip(spoken[first].tolist(), (spoken[last - 1] + 1).tolist(), strict=True))

    def _scores(self, frames: Frames, scores: np.ndarray) -> Iterator[np.ndarray]:
        """The log posteriors (frames, G) of all groups of pdfs that a state of a phone may have, given the lattice."""
        before, after = frames.totals(scores)
        posteriors = np.exp(before[frames.sources] + scores + after[frames.targets] - before[-1])
        pdfs, groups = frames.lattice.arcs[:, 2] - 1, frames.backward[:-1]  # the last arcs take no frame
        bounds = np.cumsum([0, *(len(group.arcs) for group in groups)])
        width = 1 + max(int(self._pdfs.max()), int(pdfs.max()))
        for start in range(0, len(groups), BLOCK):
            stop = min(start + BLOCK, len(groups))
            arcs = slice(bounds[start], bounds[stop])
            block = np.zeros((stop - start, width), np.float32)
            rows = np.repeat(np.arange(stop - start), np.diff(bounds[start : stop + 1]))
            np.add.at(block, (rows, pdfs[arcs]), posteriors[arcs])
            yield np.log(np.add.reduceat(block[:, self._pdfs], self._starts, axis=1) + FLOOR)

    def _states(self, words: Sequence[int]) -> tuple[States, np.ndarray]:
        """The states of words with pauses around them, and the place of the word of each state, or −1."""
        columns, owners, steps = [0], [-1], [[(0, 0.0)]]  # the pause before the first word
        starts, ends = {0: 0.0}, [0]

        def add(column: int, owner: int, sources: Sequence[int]) -> int:
            steps.append([(source, 0.0) for source in (len(columns), *sources)])
            columns.append(column)
            owners.append(owner)
            return len(columns) - 1

        for place, word in enumerate(words):
            reached = []
            for variant in self._lexicon.get(self._names[word], ()):
                sources = ends
                if not place:
                    starts[len(columns)] = 0.0
                for column in (column for phone in variant for column in self._columns[phone]):
                    sources = [add(column, place, sources)]
                reached += sources
            if not reached:
                raise ValueError(f"{self._names[word]} has no pronunciation")
            ends = [*reached, add(0, -1, reached)]
        return States.of(columns, steps, starts, dict.fromkeys(ends, 0.0)), np.array(owners)
