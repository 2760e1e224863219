"""Kaldi's beam search over the graph of a bundle, whole or as scores arrive."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import NamedTuple

import kaldi_decoder
import kaldifst
import numpy as np

from asr_kd.common.checksums import verify
from asr_kd.common.errors import UserError
from asr_kd.hmm.new_words import Slots, read_phrases
from asr_kd.hmm.word_times import PRONUNCIATIONS, WordFinder
from asr_kd.lang.words import Words
from asr_kd.runtime.bundle import GRAPH, Bundle
from asr_kd.runtime.confidence import confidences, log_totals, measures


class Word(NamedTuple):
    """A word, where it lies, in seconds from the start, and the probability that it is right, if it is known."""

    text: str
    begin: float
    end: float
    confidence: float | None = None


class Result(NamedTuple):
    """The words of a recording, or of a part of it."""

    words: tuple[Word, ...] = ()

    @property
    def text(self) -> str:
        """The words, separated by spaces."""
        return " ".join(word.text for word in self.words)


class Found(NamedTuple):
    """A word of a path: the frame that it begins with, the one after its last, and what is measured of it."""

    text: str
    begin: int
    end: int
    measures: np.ndarray


class Arcs(NamedTuple):
    """The arcs of a path.

    Attributes:
        labels: (A,) pdf + 1, or 0.
        words: (A,) word ids, or 0.
        scores: (A,) of the pdfs, including the acoustic scale.
    """

    labels: np.ndarray
    words: np.ndarray
    scores: np.ndarray


class Graph:
    """The graph of a bundle, which all searches share.

    Args:
        folder, bundle: the bundle and what it says.
        new_words: file of words and phrases to be added (asr_kd.hmm.new_words).

    Raises:
        UserError: it is missing or damaged, or the words cannot be added.
    """

    def __init__(self, folder: Path, bundle: Bundle, new_words: Path | None = None) -> None:
        path = folder / GRAPH
        if not path.is_file():
            raise UserError(f"{path} is missing: make the bundle again, or get it again")
        self.fst = kaldifst.StdVectorFst.read(str(verify(path)))
        if self.fst is None:
            raise UserError(f"{path} is damaged: make the bundle again, or get it again")
        self.words, self.bundle = Words(path.parent), bundle
        known = (path.parent / PRONUNCIATIONS).is_file()  # graphs of other toolkits have none
        self.finder = WordFinder(path.parent) if known else None
        if new_words is not None:
            names, lexicon = Slots(path.parent).add(self.fst, read_phrases(new_words, path.parent))
            self.words.names |= names
            if self.finder:
                self.finder.learn(names, lexicon)
        self.silence = frozenset(pdf + 1 for pdf in bundle.silence_pdfs)
        self.options = kaldi_decoder.FasterDecoderOptions()
        self.options.beam = bundle.beam
        self.options.max_active, self.options.min_active = bundle.max_active, bundle.min_active


class Search:
    """One search, from a frame of silence or the start of a recording on.

    Args:
        graph: shared by all searches.
        first: the recording's frame at which it starts.
    """

    def __init__(self, graph: Graph, first: int = 0) -> None:
        self.graph, self.first, self.frames = graph, first, 0
        self._decoder = kaldi_decoder.FasterDecoder(graph.fst, graph.options)
        self._decoder.init_decoding()
        self._totals: list[np.ndarray] = []  # all that is kept of the scores; the decoder has those of its paths

    def accept(self, scores: np.ndarray) -> None:
        """Go on with the scores (n, C) of the next frames, which include the acoustic scale."""
        if not len(scores):
            return
        decodable = kaldi_decoder.DecodableCtc(np.ascontiguousarray(scores, np.float32), self.frames)
        self._decoder.advance_decoding(decodable)
        self.frames += len(scores)
        self._totals.append(log_totals(scores, self.graph.bundle.acoustic_scale))

    def result(self, final: bool = True) -> Result:
        """The words of the best path; with ``final`` one that ends where a sentence may, if there is any.

        Words of such a path have exact times, if the graph tells their pronunciations; otherwise they begin where the
        graph decides for them and end with the last frame of speech before the next.
        """
        found, weights = self.found(final), self.graph.bundle.confidence
        sure: list[float | None] = [None] * len(found)
        if found and weights:
            sure = [round(value, 3) for value in confidences(weights, np.stack([word.measures for word in found]))]
        return Result(tuple(
            Word(word.text, self._seconds(word.begin), self._seconds(word.end), value)
            for word, value in zip(found, sure, strict=True)
        ))  # fmt: skip

    def found(self, final: bool = True) -> list[Found]:
        """The words of ``result``, before their confidences are known."""
        path = self._path(final)
        ids = path.words[path.words > 0].tolist()
        words = self.graph.words.parts(ids)
        if not words:
            return []
        emitting = path.labels > 0
        pdfs = path.labels[emitting] - 1
        spans = _label_spans(path, self.graph)
        if final and self.graph.finder:
            with contextlib.suppress(ValueError):  # the last word of a path may be unfinished
                spans = self.graph.finder.in_path(pdfs.tolist(), ids)
        logs = path.scores[emitting] / self.graph.bundle.acoustic_scale - np.concatenate(self._totals)
        loud = ~np.isin(pdfs, self.graph.bundle.silence_pdfs)
        found, frames = [], []
        for text, own in words:
            begin, end = spans[own][0][0], spans[own][-1][1]
            first = min(begin, len(pdfs) - 1)
            spoken = first + np.flatnonzero(loud[first:end])  # none of a noise that is a word
            frames.append(spoken if len(spoken) else np.arange(first, max(end, first + 1)))
            found.append((text, begin, end))
        return [Found(*word, row) for word, row in zip(found, measures(logs, pdfs, frames), strict=True)]

    def _seconds(self, frame: int) -> float:
        return round((self.first + frame) * self.graph.bundle.seconds, 3)

    def silence(self) -> tuple[int, bool]:
        """Frames of silence at the end of the best path, and whether there is a word before them."""
        found, path = self._decoder.get_best_path(False)
        if not self.frames or not found:
            return 0, False
        _, labels, words, _ = kaldifst.get_linear_symbol_sequence(path)
        count = next((i for i, label in enumerate(reversed(labels)) if label not in self.graph.silence), len(labels))
        return count, bool(words)

    def _path(self, final: bool) -> Arcs:
        """The best path."""
        columns: list[str] = []
        if self.frames:
            found, path = self._decoder.get_best_path(final and self._decoder.reached_final())
            # An arc after another: state, next state, label, word, costs of graph and pdf; and the last state with its.
            columns = path.to_str(show_weight_one=True).replace(",", " ").split()[:-3] if found else []
        labels, words = (np.array([*map(int, columns[place::6])], int) for place in (2, 3))
        return Arcs(labels, words, -np.array([*map(float, columns[5::6])]))


def _label_spans(path: Arcs, graph: Graph) -> list[tuple[int, int]]:
    """The frames of the words of a path, by its word labels."""
    spans: list[tuple[int, int]] = []
    frame = 0
    for label, word in zip(path.labels.tolist(), path.words.tolist(), strict=True):
        if word:
            spans.append((frame, frame))
        if label:
            frame += 1
            if spans and label not in graph.silence:
                spans[-1] = spans[-1][0], frame
    return spans
