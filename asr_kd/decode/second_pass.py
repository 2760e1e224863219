"""What follows the search of an utterance: a larger language model, minimum Bayes risk, times and confidences."""

from __future__ import annotations

import dataclasses
import itertools
import time
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.decode.client import Outcome, Search
from asr_kd.decode.lattices import Frames
from asr_kd.decode.mbr import Risk, minimum_risk, word_lattice
from asr_kd.decode.rescoring import Rescorer
from asr_kd.decode.times import word_times
from asr_kd.decode.worker import Hypothesis, Lattice, SearchOptions
from asr_kd.hmm.word_times import WordFinder
from asr_kd.lang.histories import read_histories
from asr_kd.lang.words import Words

#: The language model of a graph, in its folder.
GRAPH_MODEL = "lm.arpa"


class SecondPass:
    """Searches, and then works on the lattices.

    Args:
        rescorer: exchanges the language model; None: the graph's stays.
        mbr: choose the words with the fewest expected errors (except for a grid).
        finder: finds the times of the words (except for a grid), which then have confidences, too.
    """

    def __init__(self, rescorer: Rescorer | None = None, mbr: bool = False, finder: WordFinder | None = None) -> None:
        self.rescorer, self.mbr, self.finder = rescorer, mbr, finder

    def __call__(self, search: Search, scores: list[np.ndarray], options: SearchOptions) -> list[Outcome]:
        """The outcomes of ``search``, whose ``seconds`` include those of the second pass."""
        tuning = bool(options.scales)
        if self.rescorer is None and (tuning or not (self.mbr or self.finder)):
            return search(scores, options)
        outcomes = search(scores, dataclasses.replace(options, scales=(), penalties=(), lattice=True))
        started = time.thread_time()
        for outcome in outcomes:
            try:
                if outcome.hypothesis is not None:
                    self._refine(outcome.hypothesis, options)
            except Exception as error:  # one strange utterance must not stop the others
                outcome.hypothesis, outcome.reason = None, f"its lattice failed: {error or type(error).__name__}"
        search.seconds += time.thread_time() - started
        return outcomes

    def _refine(self, hypothesis: Hypothesis, options: SearchOptions) -> None:
        lattice, penalty = hypothesis.lattice, options.insertion_penalty
        assert lattice is not None
        if self.rescorer is not None:
            lattice = self.rescorer(lattice, 1.0, penalty, options.beam, options.lattice_beam)
            frames = Frames(lattice)
            (path,) = frames.best_paths(frames.scores(1.0, penalty)[:, None]).T
            hypothesis.words = frames.words(path)
            hypothesis.graph, hypothesis.acoustic = lattice.scores[path].sum(0, dtype=float).tolist()
            if options.scales:
                _fill_grid(hypothesis, frames, options)
        if (self.mbr or self.finder) and not options.scales:
            self._finish(hypothesis, lattice, options)
        hypothesis.lattice = lattice if options.lattice else None

    def _finish(self, hypothesis: Hypothesis, lattice: Lattice, options: SearchOptions) -> None:
        """Choose the words with the fewest expected errors, and find confidences and times."""
        frames, words = Frames(lattice), hypothesis.words or []
        scores = frames.scores(1.0, options.insertion_penalty)
        arcs = word_lattice(lattice, scores, options.lattice_beam)
        if self.mbr:
            words, hypothesis.confidences, _ = minimum_risk(arcs, words)
        else:
            hypothesis.confidences = Risk(arcs, words).confidences()
        if self.finder:
            hypothesis.times = word_times(self.finder, frames, scores, words)
        hypothesis.words = words


def _fill_grid(hypothesis: Hypothesis, frames: Frames, options: SearchOptions) -> None:
    """Fill ``grid`` and ``grid_index`` as the search does."""
    points = itertools.product(options.scales, options.penalties)
    scores = [frames.scores(scale / options.acoustic_scale, penalty) for scale, penalty in points]
    index: dict[tuple[int, ...], int] = {}
    for path in frames.best_paths(np.stack(scores, axis=1)).T:
        hypothesis.grid_index.append(index.setdefault(tuple(frames.words(path)), len(index)))
    hypothesis.grid = [list(words) for words in index]


def make_second_pass(graph: Path, rescore: Path | None, mbr: bool, times: bool = False) -> SecondPass:
    """The second pass that the flags describe.

    Args:
        graph: folder of the graph, with the language model that it was made from.
        rescore: ARPA model whose weights replace those of the graph's.
        mbr: minimise the expected errors.
        times: find times and confidences.

    Raises:
        UserError: the graph's folder has no language model or no pronunciations, or a model cannot be read.
    """
    finder = WordFinder(graph) if times else None
    if rescore is None:
        return SecondPass(None, mbr, finder)
    old = graph / GRAPH_MODEL
    if not old.is_file():
        raise UserError(
            f"{old} is missing, and with it the weights that --rescore takes out: run python -m asr_kd.hmm.graph "
            "again, or copy the ARPA model there that the graph was made from"
        )
    words = Words(graph)
    numbers = {name: number for number, name in words.names.items()}
    rescorer = Rescorer(read_histories(old, numbers, "keep"), read_histories(rescore, numbers, words.case))
    return SecondPass(rescorer, mbr, finder)
