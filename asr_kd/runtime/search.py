"""Kaldi's beam search over the graph of a bundle, whole or as scores arrive."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import kaldi_decoder
import kaldifst
import numpy as np

from asr_kd.common.checksums import verify
from asr_kd.common.errors import UserError
from asr_kd.hmm.word_times import PRONUNCIATIONS, WordFinder
from asr_kd.lang.words import Words
from asr_kd.runtime.bundle import GRAPH, Bundle


class Word(NamedTuple):
    """A word and where it lies, in seconds from the start."""

    text: str
    begin: float
    end: float


class Result(NamedTuple):
    """The words of a recording, or of a part of it."""

    words: tuple[Word, ...] = ()

    @property
    def text(self) -> str:
        """The words, separated by spaces."""
        return " ".join(word.text for word in self.words)


class Graph:
    """The graph of a bundle, which all searches share.

    Raises:
        UserError: it is missing or damaged.
    """

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        path = folder / GRAPH
        if not path.is_file():
            raise UserError(f"{path} is missing: make the bundle again, or get it again")
        self.fst = kaldifst.StdVectorFst.read(str(verify(path)))
        if self.fst is None:
            raise UserError(f"{path} is damaged: make the bundle again, or get it again")
        self.words, self.bundle = Words(path.parent), bundle
        known = (path.parent / PRONUNCIATIONS).is_file()  # graphs of other toolkits have none
        self.finder = WordFinder(path.parent) if known else None
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

    def accept(self, scores: np.ndarray) -> None:
        """Go on with the scores (n, C) of the next frames, which include the acoustic scale."""
        if not len(scores):
            return
        decodable = kaldi_decoder.DecodableCtc(np.ascontiguousarray(scores, np.float32), self.frames)
        self._decoder.advance_decoding(decodable)
        self.frames += len(scores)

    def result(self, final: bool = True) -> Result:
        """The words of the best path; with ``final`` one that ends where a sentence may, if there is any.

        Words of such a path have exact times, if the graph tells their pronunciations; otherwise they begin where the
        graph decides for them and end with the last frame of speech before the next.
        """
        path = self._path(final)
        ids = [word for _, word in path if word]
        spans = _label_spans(path, self.graph)
        if final and self.graph.finder:
            with contextlib.suppress(ValueError):  # the last word of a path may be unfinished
                spans = self.graph.finder.in_path([pdf - 1 for pdf, _ in path if pdf], ids)
        words = self.graph.words.parts(ids)
        return Result(tuple(Word(text, *self._seconds(spans[own][0][0], spans[own][-1][1])) for text, own in words))

    def _seconds(self, *frames: int) -> list[float]:
        return [round((self.first + frame) * self.graph.bundle.seconds, 3) for frame in frames]

    def silence(self) -> tuple[int, bool]:
        """Frames of silence at the end of the best path, and whether there is a word before them."""
        found, path = self._decoder.get_best_path(False)
        if not self.frames or not found:
            return 0, False
        _, labels, words, _ = kaldifst.get_linear_symbol_sequence(path)
        count = next((i for i, label in enumerate(reversed(labels)) if label not in self.graph.silence), len(labels))
        return count, bool(words)

    def _path(self, final: bool) -> Sequence[tuple[int, int]]:
        """The labels of the best path: (pdf + 1, word) of each of its arcs, 0 where it has none."""
        if not self.frames:
            return []
        found, path = self._decoder.get_best_path(final and self._decoder.reached_final())
        if not found:
            return []
        # An arc after another, with state, next state, label, word and weight; and two values for the last state.
        columns = path.to_str(show_weight_one=True).split()
        return [*zip(map(int, columns[2:-2:5]), map(int, columns[3:-2:5]), strict=True)]


def _label_spans(path: Sequence[tuple[int, int]], graph: Graph) -> list[tuple[int, int]]:
    """The frames of the words of a path, by its word labels."""
    spans: list[tuple[int, int]] = []
    frame = 0
    for pdf, word in path:
        if word:
            spans.append((frame, frame))
        if pdf:
            frame += 1
            if spans and pdf not in graph.silence:
                spans[-1] = spans[-1][0], frame
    return spans
