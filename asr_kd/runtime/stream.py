"""Recognition while the samples arrive."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.features.audio import MAX_LEVEL, MIN_SECONDS
from asr_kd.features.front_end import MARGIN
from asr_kd.runtime.network import Network, before, no_speech, num_frames, pad
from asr_kd.runtime.search import Graph, Result, Search, Word


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a stream is cut and how often it is looked at.

    Attributes:
        endpoint: seconds of silence after words that end an utterance; 0: only ``finish`` does.
        chunk: frames that are scored at once.
        look_ahead: frames after a frame that must be there before it is scored; at least as many as the network hears.
        begin: frames that must be there before the first is scored.
        prior: frames of usual speech that the normalisation begins with, until it knows the speaker, if the bundle does
            not have more.
        again: seconds; a shorter utterance is recognised again when it has ended, as a recording of its own, since the
            normalisation knows its speech then; 0: none is.
    """

    endpoint: float = 0.8
    chunk: int = 10
    look_ahead: int = 15
    begin: int = 60
    prior: float = 10.0
    again: float = 15.0


class Stream:
    """Words of samples that arrive little by little.

    Args:
        network, graph: of a bundle, shared with other streams.
        settings: see ``Settings``.
        on_scores: called with the scores (n, C) of the next frames, as soon as they are known.
    """

    def __init__(
        self, network: Network, graph: Graph, settings: Settings, on_scores: Callable[[np.ndarray], None] | None = None
    ) -> None:
        self.on_scores = on_scores
        self.network, self.graph, self.bundle, self.settings = network, graph, network.bundle, settings
        self.look_ahead = max(settings.look_ahead, self.bundle.right)
        self._samples = np.empty(0, np.float32)  # the end of the stream: what is still needed
        self._dropped = 0  # frames whose first samples have been dropped
        self._began = 0  # frame with which the utterance began
        self._received = 0
        self._speech, self._heard = no_speech(self.bundle), 0  # sums over the frames so far, and how many these are
        self._scored = 0
        self._search = Search(graph)
        self._words: tuple[Word, ...] = ()  # of the utterances that have ended
        self._shown: list[tuple[Word, ...]] = []
        self._finished = self._sounds = False

    def accept(self, samples: np.ndarray) -> None:
        """Go on with mono samples (N,) in [−1, 1] at the bundle's rate, any number of them.

        Raises:
            UserError: they are not one channel of finite numbers, or the stream has been finished.
        """
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all() or (np.abs(samples) > MAX_LEVEL).any():
            raise UserError("samples of a stream must be one channel of finite numbers, 1.0 at full scale: give others")
        if self._finished:
            raise UserError("the stream has been finished: begin another")
        self._samples = np.concatenate([self._samples, samples])
        self._received += len(samples)
        self._sounds = self._sounds or bool(samples.any())
        available = max(0, 1 + (self._received + before(self.bundle) - self.bundle.window) // self.bundle.shift)
        # What is scored at once does not depend on how the samples arrive, and so neither do the words.
        while self._sounds:
            whole = max(self.settings.begin, self._scored + self.settings.chunk + self.look_ahead)
            if whole > available:
                break
            self._score(whole, whole - self.look_ahead, end=False)
            self._end_utterance()

    def partial(self) -> Result:
        """The words so far; the last of them may still change."""
        return Result(self._words + self._search.result(final=False).words)

    @property
    def fixed(self) -> int:
        """How many of the words of ``partial`` do not change any more."""
        return len(self._words)

    def finish(self) -> Result:
        """The words of the whole stream; ``accept`` takes no more."""
        if not self._finished:
            self._finished = True
            frames = num_frames(self.bundle, self._received)
            if self._sounds and frames > self._scored and self._received >= MIN_SECONDS * self.bundle.sampling_rate:
                self._score(frames, frames, end=True)
            self._fix_words(end=True)
        return Result(self._words)

    def _score(self, whole: int, ready: int, end: bool) -> None:
        """Score the frames up to ``ready``; all up to ``whole`` can be computed."""
        first = self._first_needed(self._scored)
        new = whole - self._heard
        prior = max(self.settings.prior, self.bundle.prior)
        scores, self._speech = self._network(self._speech, first, whole, new, prior, self._scored, ready, end)
        self._heard, self._scored = whole, ready
        self._search.accept(scores)
        if self.on_scores:
            self.on_scores(scores)
        kept = self._first_needed(self._began if self._is_short() else self._scored)
        self._samples = self._samples[self._place(kept) - self._place(self._dropped) :]
        self._dropped = kept

    def _network(
        self, speech: np.ndarray, first: int, whole: int, new: int, prior: float, start: int, stop: int, end: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores of frames, given the samples of those from ``first`` to ``whole``; and the sums over the speech."""
        samples = self._samples[self._place(first) - self._place(self._dropped) :]
        samples = pad(self.bundle, samples, begin=not first, end=end)
        samples = samples[: (whole - first - 1) * self.bundle.shift + self.bundle.window]
        return self.network(samples, speech, new, prior, start - first, stop - first)

    def _first_needed(self, frame: int) -> int:
        """The first frame that must be computed to score another: of those near it, it matters whether they are
        speech."""
        return max(0, frame - self.bundle.left - MARGIN)

    def _place(self, frame: int) -> int:
        """The first sample of a frame."""
        return max(0, frame * self.bundle.shift - before(self.bundle))

    def _is_short(self) -> bool:
        """Whether the utterance is short enough to be recognised again, and so all of its samples are kept."""
        return (self._scored - self._began) * self.bundle.seconds <= self.settings.again

    def _end_utterance(self) -> None:
        """Begin another search where the last utterance has ended."""
        if not self.settings.endpoint:
            return
        silence, words = self._search.silence()
        if words and silence * self.bundle.seconds >= self.settings.endpoint:
            self._fix_words(end=False)

    def _fix_words(self, end: bool) -> None:
        """Fix the words of an utterance that has ended, and begin another search."""
        result = self._search.result()
        if result.words and self._is_short():
            first = self._first_needed(self._began)
            speech, frames = no_speech(self.bundle), self._heard - first
            prior, scored = self.bundle.prior, self._scored
            scores, _ = self._network(speech, first, self._heard, frames, prior, self._began, scored, end)
            search = Search(self.graph, self._began)
            search.accept(scores)
            result = search.result()
        self._words += result.words
        self._began = self._scored
        self._search = Search(self.graph, self._scored)
