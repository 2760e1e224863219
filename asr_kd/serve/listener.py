"""What one client says, step by step, and the words of it: without any network."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.corpora.utterances import MAX_RATE, MIN_RATE
from asr_kd.features.audio import Resampler
from asr_kd.runtime import Recogniser, Word
from asr_kd.runtime.stream import Settings

#: Samples of a client by name, and what is full scale.
FORMATS: dict[str, tuple[np.dtype[Any], float]] = {
    "float32": (np.dtype("<f4"), 1.0),
    "int16": (np.dtype("<i2"), 32768.0),
}
#: A filter has at most so many phases: the rates of common devices are exact, others within a thousandth.
MAX_PHASES = 640


class Heard(NamedTuple):
    """What is known after a step.

    Attributes:
        words: so far.
        fixed: how many of them do not change any more.
        scores: (n, C) of the frames that this step scored.
    """

    words: tuple[Word, ...]
    fixed: int
    scores: np.ndarray


class Listener:
    """A stream at a client's rate and in its format.

    Args:
        recogniser: shared with other clients.
        settings: of the stream.
        rate: of the client, in Hz.
        format: one of ``FORMATS``.
        max_seconds: of audio.

    Raises:
        UserError: the rate or the format cannot be used.
    """

    def __init__(self, recogniser: Recogniser, settings: Settings, rate: Any, format: Any, max_seconds: float) -> None:
        if isinstance(rate, bool) or not isinstance(rate, int) or not MIN_RATE <= rate <= MAX_RATE:
            raise UserError(f"the rate must be a whole number of Hz from {MIN_RATE} to {MAX_RATE}, not {rate!r:.40}")
        if not isinstance(format, str) or format not in FORMATS:
            raise UserError(f"the format must be one of {', '.join(FORMATS)}, not {format!r:.40}")
        ratio = Fraction(rate, recogniser.bundle.sampling_rate).limit_denominator(MAX_PHASES)
        self.resampler = Resampler(ratio.numerator, ratio.denominator)
        self._dtype, self._full_scale = FORMATS[format]
        seconds = settings.chunk * recogniser.bundle.seconds  # of a step: one more chunk can be scored after it
        self._step, self._left = round(seconds * rate) * self._dtype.itemsize, b""
        self.max_seconds, self._bytes_left = max_seconds, round(max_seconds * rate) * self._dtype.itemsize
        self._scores: list[np.ndarray] = []
        self._words: tuple[Word, ...] = ()
        self.stream = recogniser.stream(settings, self._scores.append)

    def steps(self, data: bytes) -> Iterator[bytes]:
        """Samples that came, in pieces for ``accept``; what is less than a step waits for more.

        Raises:
            UserError: there are too many.
        """
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise UserError(f"the stream is longer than {self.max_seconds:g} s: begin another")
        data = self._left + data
        whole = len(data) // self._step * self._step
        self._left = data[whole:]
        return (data[start : start + self._step] for start in range(0, whole, self._step))

    def accept(self, data: bytes) -> Heard:
        """Go on with samples.

        Raises:
            UserError: they cannot be used.
        """
        samples = np.frombuffer(data, self._dtype).astype(np.float32) / np.float32(self._full_scale)
        self.stream.accept(self.resampler.accept(samples))
        if self._scores:  # otherwise the words are as before
            self._words = self.stream.partial().words
        return self._heard(self._words, self.stream.fixed)

    def finish(self) -> Heard:
        """The words of the whole stream.

        Raises:
            UserError: the last samples cannot be used.
        """
        if len(self._left) % self._dtype.itemsize:
            raise UserError(f"the audio ends within a sample: send {self._dtype.itemsize} bytes for each")
        self.accept(self._left)
        self.stream.accept(self.resampler.finish())
        words = self.stream.finish().words
        return self._heard(words, len(words))

    def _heard(self, words: tuple[Word, ...], fixed: int) -> Heard:
        scores = np.concatenate(self._scores) if self._scores else np.empty((0, 0), np.float32)
        self._scores.clear()
        return Heard(words, fixed, scores)
