"""Recognition of whole recordings, and of streams, with a bundle."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.features.audio import read_audio, sample_fault
from asr_kd.runtime.bundle import FLOAT, INT8, Bundle
from asr_kd.runtime.network import Network
from asr_kd.runtime.search import Graph, Result, Search
from asr_kd.runtime.stream import Settings, Stream

#: A longer recording (15 s) is cut where it is quietest, since level and speaker change; and so much around a cut is
#: looked at (0.3 s).
LONG, PAUSE = 1500, 30
#: A part is quiet if its loudest frame is so much below the recording's, in natural log units (26 dB).
QUIET_RANGE = 6.0


class Recogniser:
    """Recognises speech with one bundle; streams of several threads may share it.

    Args:
        bundle: what ``decode.json`` says.
        network, graph: loaded from the same folder.
    """

    def __init__(self, bundle: Bundle, network: Network, graph: Graph) -> None:
        self.bundle, self.network, self.graph = bundle, network, graph

    @classmethod
    def from_bundle(cls, folder: Path | str, quantised: bool = True, threads: int = 1) -> Recogniser:
        """A recogniser with the bundle in a folder.

        Args:
            quantised: use the network in int8; else in float32.
            threads: of the network.

        Raises:
            UserError: the folder is no bundle, or a file is missing or damaged.
        """
        folder = Path(folder)
        bundle = Bundle.load(folder)
        network = Network(folder / (INT8 if quantised else FLOAT), bundle, threads)
        return cls(bundle, network, Graph(folder, bundle))

    def __call__(self, audio: Path | str | np.ndarray) -> Result:
        """The words of an audio file of any rate, or of mono samples (N,) in [−1, 1] at the bundle's rate.

        Raises:
            UserError: the file cannot be read, or its samples cannot be used.
        """
        rate = self.bundle.sampling_rate
        samples = np.asarray(audio, np.float32) if isinstance(audio, np.ndarray) else read_audio(audio, rate)
        name = "the samples" if isinstance(audio, np.ndarray) else str(audio)
        if samples.ndim != 1:
            raise UserError(f"{name} have the shape {samples.shape}: give one channel, (N,)")
        if fault := sample_fault(samples, rate):
            raise UserError(f"{name} cannot be recognised ({fault}): give another recording")
        shift = self.bundle.shift
        results = (self.search(self.scores(samples[a * shift : b * shift]), a) for a, b in self.parts(samples))
        return Result(tuple(word for result in results for word in result.words))

    def stream(self, settings: Settings = Settings()) -> Stream:  # noqa: B008
        """A stream of samples, from its first to its last."""
        return Stream(self.network, self.graph, settings)

    def scores(self, samples: np.ndarray) -> np.ndarray:
        """The scores (T, C) of a whole recording of at most ``LONG`` frames, times the acoustic scale."""
        return self.network.whole(samples)

    def search(self, scores: np.ndarray, first: int = 0) -> Result:
        """The words of scores (T, C) times the acoustic scale; they begin with a recording's frame ``first``."""
        search = Search(self.graph, first)
        search.accept(scores)
        return search.result()

    def parts(self, samples: np.ndarray) -> list[tuple[int, int]]:
        """The parts of a recording that are recognised one by one, but those in which nobody speaks."""
        frames = -(-len(samples) // self.bundle.shift)
        if frames <= LONG:
            return [(0, frames)]
        power = np.pad(np.square(samples, dtype=np.float64), (0, frames * self.bundle.shift - len(samples)))
        loudness = np.log(power.reshape(frames, -1).mean(1) + 1e-12)
        smooth = np.convolve(loudness, np.ones(PAUSE) / PAUSE, "same")
        bounds = [0]
        while frames - bounds[-1] > LONG:
            first = bounds[-1] + LONG // 2
            last = min(bounds[-1] + LONG, frames - LONG // 4)  # leave no short rest
            bounds.append(first + int(smooth[first : last + 1].argmin()))
        parts = list(itertools.pairwise([*bounds, frames]))
        loudest = [float(smooth[a:b].max()) for a, b in parts]
        return [part for part, level in zip(parts, loudest, strict=True) if level > max(loudest) - QUIET_RANGE]
