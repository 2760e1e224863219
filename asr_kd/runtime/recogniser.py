"""Recognition of whole recordings, and of streams, with a bundle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.features.audio import audio_blocks
from asr_kd.features.parts import LONG, WHOLE, usable_parts
from asr_kd.runtime.bundle import FLOAT, INT8, Bundle
from asr_kd.runtime.network import Network
from asr_kd.runtime.search import Graph, Result, Search
from asr_kd.runtime.stream import Settings, Stream


class Recogniser:
    """Recognises speech with one bundle; streams of several threads may share it.

    Args:
        bundle: what ``decode.json`` says.
        network, graph: loaded from the same folder.
    """

    def __init__(self, bundle: Bundle, network: Network, graph: Graph) -> None:
        self.bundle, self.network, self.graph = bundle, network, graph

    @classmethod
    def from_bundle(
        cls, folder: Path | str, quantised: bool = True, threads: int = 1, new_words: Path | str | None = None
    ) -> Recogniser:
        """A recogniser with the bundle in a folder.

        Args:
            quantised: use the network in int8; else in float32.
            threads: of the network.
            new_words: file of words and phrases that are recognised too: lines WORDS<TAB>PHONES<TAB>WEIGHT.

        Raises:
            UserError: the folder is no bundle, a file is missing or damaged, or a new word has no pronunciation.
        """
        folder = Path(folder)
        bundle = Bundle.load(folder)
        network = Network(folder / (INT8 if quantised else FLOAT), bundle, threads)
        return cls(bundle, network, Graph(folder, bundle, None if new_words is None else Path(new_words)))

    def __call__(self, audio: Path | str | np.ndarray, channel: int = 0) -> Result:
        """The words of an audio file of any rate and length, or of mono samples (N,) in [−1, 1] at the bundle's rate.

        Args:
            channel: of the file, from 1; 0: the mean of all.

        Raises:
            UserError: the file cannot be read, or its samples cannot be used.
        """
        return Result(tuple(word for result in self.results(audio, channel=channel) for word in result.words))

    def results(
        self, audio: Path | str | np.ndarray, max_seconds: float = math.inf, channel: int = 0
    ) -> Iterator[Result]:
        """Yield the words of each part of a recording as soon as they are found; see ``__call__``.

        Args:
            max_seconds: a longer file is refused when so much has been read.
        """
        rate, name = self.bundle.sampling_rate, "the samples"
        blocks: Iterable[np.ndarray]
        if isinstance(audio, np.ndarray):
            if audio.ndim != 1:
                raise UserError(f"the samples have the shape {audio.shape}: give one channel, (N,)")
            if not np.isfinite(audio).all():
                raise UserError("the samples have NaN or infinite values: give another recording")
            blocks = [np.asarray(audio, np.float32)]
        else:
            blocks, name = audio_blocks(audio, rate, max_seconds, channel), str(audio)
        for first, samples in usable_parts(blocks, rate, self.bundle.shift, name, WHOLE, WHOLE):
            yield self.search(self.scores(samples), first)

    def stream(self, settings: Settings | None = None, on_scores: Callable[[np.ndarray], None] | None = None) -> Stream:
        """A stream of samples, from its first to its last; see ``Stream``."""
        return Stream(self.network, self.graph, settings or Settings(), on_scores)

    def scores(self, samples: np.ndarray) -> np.ndarray:
        """The scores (T, C) of a recording, times the acoustic scale; long ones are normalised in segments."""
        return self.network.whole(samples) if len(samples) <= LONG * self.bundle.shift else self.network.long(samples)

    def search(self, scores: np.ndarray, first: int = 0) -> Result:
        """The words of scores (T, C) times the acoustic scale; they begin with a recording's frame ``first``."""
        search = Search(self.graph, first)
        search.accept(scores)
        return search.result()
