"""Where words are, from the senones of paths through a graph and the pronunciations of its words; NumPy alone.

The word labels of a graph are not where words begin: determinisation and minimisation have moved them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.files import read_json
from asr_kd.hmm.states import States, best_path
from asr_kd.lang.words import Words

#: Of a graph, in its folder.
PRONUNCIATIONS = "pronunciations.json"
#: Posterior of a state that no path has in a frame.
FLOOR = 1e-6
#: Beams of the search for the words; the last one finds words that no path has.
BEAMS = (100.0, np.inf)


class WordFinder:
    """Finds words in paths.

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
        self.num_pdfs = int(self._pdfs.max()) + 1

    def learn(self, names: Mapping[int, str], lexicon: Mapping[str, Sequence[Sequence[str]]]) -> None:
        """Know further words, by their ids, and their pronunciations."""
        self._names, self._lexicon = {**self._names, **names}, {**self._lexicon, **lexicon}

    def in_path(self, pdfs: Sequence[int], words: Sequence[int]) -> list[tuple[int, int]]:
        """As ``find``, in one path with a pdf per frame."""
        columns = max(self.num_pdfs, max(pdfs, default=0) + 1)

        def blocks() -> Iterable[np.ndarray]:
            for pdf in pdfs:
                yield np.eye(1, columns, pdf, dtype=np.float32)

        return self.find(words, blocks)

    def find(self, words: Sequence[int], blocks: Callable[[], Iterable[np.ndarray]]) -> list[tuple[int, int]]:
        """The first frame of each word, and the one after its last.

        Args:
            words: ids of words or pieces, of a path or others.
            blocks: returns the posteriors (frames, C) of the pdfs, of successive frames; C is at least ``num_pdfs``.

        Raises:
            ValueError: a word has no pronunciation, or the words are longer than the utterance.
        """
        states, owners = self._states(words)
        paths = (best_path(states, map(self._scores, blocks()), beam) for beam in BEAMS)
        found = next(filter(None, paths), None)
        if found is None:
            raise ValueError("its words are longer than it")
        owner = owners[found[0]]
        spoken = np.flatnonzero(owner >= 0)
        first, last = (np.searchsorted(owner[spoken], np.arange(len(words)), side) for side in ("left", "right"))
        return list(zip(spoken[first].tolist(), (spoken[last - 1] + 1).tolist(), strict=True))

    def _scores(self, posteriors: np.ndarray) -> np.ndarray:
        """The log posteriors (frames, G) of all groups of pdfs that a state of a phone may have."""
        sums = np.add.reduceat(posteriors[:, self._pdfs], self._starts, axis=1)
        scores: np.ndarray = np.log(sums + FLOOR)
        return scores

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
