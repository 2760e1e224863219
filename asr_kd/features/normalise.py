"""Normalisation of features by the speech in them: all later stages read features through ``Normaliser``.

What surrounds the speech must not move its features.  Mean and deviation are those of frames that are about as loud as
the loudest speech, between 300 Hz and 2.2 kHz, where vowels have their energy and noise has little of it.  What is far
from such frames is replaced by one constant, and what is far below them is cut off, so that a pause looks the same to
a network whether it holds digital silence, hiss, or nothing at all.

That takes log-mels or MFCCs with known filters.  In other features no speech can be found: mean and deviation are those
of all frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.common.storage import load_array, read_json
from asr_kd.features.extractors import raw_features
from asr_kd.features.front_end import DESCRIPTION, FBANK, MARGIN, FrontEnd
from asr_kd.features.parts import LONG, QUIET_RANGE, level_of, segment_bounds

#: Frames of speech are at most this far below the level of the speech, in natural log units (23 dB).
SPEECH_RANGE = 5.3
#: Frames of an utterance's own speech at which its own statistics and those of its speaker count alike.
SPEAKER_FRAMES = 300
#: Frames of usual speech that count next to the speech of an utterance whose speaker is unknown: a few words tell too
#: little for a network that knew its speakers.
USUAL_FRAMES = 100
#: Normalised features are at least this, except in quiet frames, which are ``QUIET`` everywhere: all but the same to a
#: network, so that digital silence next to speech looks like what is far from it, and yet told from the closure of a
#: stop in a clean recording.
FLOOR = -3.0
QUIET = -3.01
#: A smaller standard deviation (in log-mel units) means a dead filter; that of speech is 1 to 3.
MIN_STD = 0.1
#: The same for features whose units are unknown.
TINY_STD = 1e-5


class Speech(NamedTuple):
    """The speech of an utterance.

    Attributes:
        level: its loudness, a natural log of energy.
        frames: (T,) bool, frames that are about as loud.
    """

    level: float
    frames: np.ndarray


def find_speech(front_end: FrontEnd, features: np.ndarray) -> Speech:
    """The speech in raw features (T, F)."""
    if not front_end.finds_speech:
        return Speech(0.0, np.ones(len(features), bool))
    loudness = front_end.loudness(features)
    level = level_of(loudness)
    return Speech(level, loudness >= level - SPEECH_RANGE)


def segments(front_end: FrontEnd, features: np.ndarray) -> list[np.ndarray]:
    """The segments of raw features (T, F) that are normalised each by itself; those of short recordings are one."""
    if len(features) <= LONG or not front_end.finds_speech:
        return [features]
    return np.split(features, segment_bounds(front_end.loudness(features))[1:])


def quiet_frames(features: np.ndarray) -> np.ndarray:
    """(T,) bool: the frames of normalised features (T, F) that are far from speech."""
    quiet: np.ndarray = (features == QUIET).all(axis=1)
    return quiet


def speech_sums(front_end: FrontEnd, features: np.ndarray, speech: Speech) -> np.ndarray:
    """(3, F) float64: the number of frames of speech in raw features (T, F), and their Σx and Σx² above the level."""
    frames = features[speech.frames].astype(np.float64) - speech.level * front_end.level
    return np.stack([np.full(frames.shape[1], len(frames)), frames.sum(0), np.square(frames).sum(0)])


class Normaliser:
    """Reads a cut's features, and normalises them by the speech of the utterance and of its speaker.

    Args:
        front_end: what the features are.
        speakers: (3, F) ``speech_sums`` divided by their number of frames, by speaker.

    Attributes:
        usual: the mean of ``speakers``, to which the utterances of any other speaker are near; None: no speakers, and
            utterances are normalised by their own speech alone.
    """

    def __init__(self, front_end: FrontEnd, speakers: Mapping[str, np.ndarray] | None = None) -> None:
        self.front_end, self.speakers = front_end, speakers or {}
        self.usual: np.ndarray | None = np.mean([*self.speakers.values()], 0) if self.speakers else None

    @classmethod
    def load(cls, features_dir: Path) -> Normaliser:
        """The normaliser of a folder that the features stage wrote.

        Raises:
            UserError: the statistics are missing or damaged.
        """
        folder = Path(features_dir)
        front_end, names = FrontEnd.load(folder), read_json(folder / DESCRIPTION)["speakers"]
        return cls(front_end, dict(zip(names, load_array(folder / "cmvn_speakers.npy"), strict=True)))

    def __call__(self, cut: MonoCut) -> np.ndarray:
        """Normalised features of a cut, (T, F) float32, C-contiguous.

        Raises:
            UserError: the features are missing or damaged, or not those of this normaliser.
        """
        features, stored, known = raw_features(cut), cut.features, self.front_end
        found = stored.type, stored.num_features, stored.sampling_rate
        if found != (known.extractor, known.num_features, known.sampling_rate):
            raise UserError(
                f"{cut.id} has {stored.num_features} features ({stored.type}) at {stored.sampling_rate} Hz instead of "
                f"{known}: give --features the folder that these cuts were made from"
            )
        return self.normalise(features, cut.supervisions[0].speaker if cut.supervisions else None)

    def normalise(self, features: np.ndarray, speaker: str | None = None) -> np.ndarray:
        """Normalised features (T, F) from raw ones."""
        features = np.ascontiguousarray(features, dtype=np.float32)
        if not len(features) or self.front_end.normalise == "none":
            return features
        parts = segments(self.front_end, features)
        found = [find_speech(self.front_end, part) for part in parts]
        if len(parts) == 1:
            return self._normalise_segment(features, found[0], speaker)
        lowest = find_speech(self.front_end, features).level - QUIET_RANGE
        return np.concatenate([
            self._normalise_segment(part, speech, speaker) if speech.level > lowest else np.full_like(part, QUIET)
            for part, speech in zip(parts, found, strict=True)
        ])  # fmt: skip

    def _normalise_segment(self, features: np.ndarray, speech: Speech, speaker: str | None) -> np.ndarray:
        sums = speech_sums(self.front_end, features, speech)
        if speaker is not None and speaker in self.speakers:
            sums += SPEAKER_FRAMES * self.speakers[speaker]
        elif self.usual is not None:
            sums += USUAL_FRAMES * self.usual
        mean, scale = self._mean_and_scale(sums)
        normalised = (features - (mean + speech.level * self.front_end.level).astype(np.float32)) * scale
        if not self.front_end.finds_speech:
            return normalised
        if self.front_end.extractor == FBANK:
            np.maximum(normalised, np.float32(FLOOR), out=normalised)
        else:  # the first cepstrum is the level, and the others of a frame that is cut off tell nothing
            normalised[normalised[:, 0] <= FLOOR] = FLOOR
        normalised[_far_from(speech.frames)] = QUIET
        return normalised

    def _mean_and_scale(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(F,) mean, and 1 / standard deviation (float32), from ``speech_sums``."""
        count, total, squares = sums
        mean, least = total / count, MIN_STD if self.front_end.finds_speech else TINY_STD
        std = np.sqrt(np.maximum(squares / count - mean**2, least**2))
        return mean, (1 / std).astype(np.float32)


def _far_from(frames: np.ndarray) -> np.ndarray:
    """(T,) bool: where no frame of ``frames`` is within ``MARGIN``."""
    before = np.concatenate([np.zeros(MARGIN + 1, int), np.cumsum(frames), np.full(MARGIN, frames.sum())])
    return before[2 * MARGIN + 1 :] == before[: len(frames)]
