"""Normalisation of log-mels by the speech in them: all later stages read features through ``Normaliser``.

What surrounds the speech must not move its features.  Mean and deviation are those of frames that are about as loud as
the loudest speech, between 300 Hz and 2 kHz, where vowels have their energy and noise has little of it.  What is far
from such frames is replaced by one constant, and what is far below them is cut off, so that a pause looks the same to
a network whether it holds digital silence, hiss, or nothing at all.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.storage import load_array, read_json
from asr_kd.features.filterbanks import VOWEL_FILTERS, raw_features

#: Frames of speech are at most this far below the level of the speech, in natural log units (23 dB).
SPEECH_RANGE = 5.3
#: Frames (0.3 s) around a frame of speech that may hold its weak sounds; all others are quiet.
MARGIN = 30
#: Frames of an utterance's own speech at which its own statistics and those of its speaker count alike.
SPEAKER_FRAMES = 300
#: Normalised features are at least this, except in quiet frames, which are ``QUIET`` everywhere: all but the same to a
#: network, so that digital silence next to speech looks like what is far from it, and yet told from the closure of a
#: stop in a clean recording.
FLOOR = -3.0
QUIET = -3.01
#: A smaller standard deviation (in log-mel units) means a dead filter; that of speech is 1 to 3.
MIN_STD = 0.1


#: Longer recordings (15 s) are normalised in segments of 1.5 to 4 s, cut where 0.2 s are quietest, since level, speaker
#: and microphone change in them.
LONG, MIN_SEGMENT, MAX_SEGMENT, PAUSE = 1500, 150, 400, 20
#: A segment is quiet if its level is further below that of the recording, in natural log units (26 dB).
RECORDING_RANGE = 6.0


class Speech(NamedTuple):
    """The speech of an utterance.

    Attributes:
        level: its loudness, a natural log of energy.
        frames: (T,) bool, frames that are about as loud.
    """

    level: float
    frames: np.ndarray


def find_speech(features: np.ndarray) -> Speech:
    """The speech in raw log-mels (T, 40).

    The level is the mean loudness of the frames, weighted by their energy, so that silence does not count.
    """
    loudness = _loudness(features)
    energy = np.exp(loudness - loudness.max())
    level = float(energy @ loudness / energy.sum())
    return Speech(level, loudness >= level - SPEECH_RANGE)


def _loudness(features: np.ndarray) -> np.ndarray:
    """(T,) float64: log energy of raw log-mels (T, 40) where vowels have theirs."""
    return np.asarray(np.log(np.exp(features[:, VOWEL_FILTERS]).sum(1, dtype=np.float64)))


def segments(features: np.ndarray) -> list[np.ndarray]:
    """The segments of raw log-mels (T, 40) that are normalised each by itself; those of short recordings are one."""
    if len(features) <= LONG:
        return [features]
    averages = np.convolve(_loudness(features), np.ones(PAUSE) / PAUSE, "valid")
    bounds = [0]
    while len(features) - bounds[-1] > MAX_SEGMENT:
        start = bounds[-1] + MIN_SEGMENT
        pause = averages[start - PAUSE // 2 : bounds[-1] + MAX_SEGMENT - PAUSE // 2]
        bounds.append(start + int(pause.argmin()))
    return np.split(features, bounds[1:])


def quiet_frames(features: np.ndarray) -> np.ndarray:
    """(T,) bool: the frames of normalised features (T, 40) that are far from speech."""
    return features[:, 0] == QUIET


def speech_sums(features: np.ndarray, speech: Speech) -> np.ndarray:
    """(3, 40) float64: the number of frames of speech in raw log-mels (T, 40), and their Σx and Σx² above the level."""
    frames = features[speech.frames].astype(np.float64) - speech.level
    return np.stack([np.full(frames.shape[1], len(frames)), frames.sum(0), np.square(frames).sum(0)])


def _mean_and_std(sums: np.ndarray) -> np.ndarray:
    """(2, 40): mean and standard deviation (at least ``MIN_STD``) from ``speech_sums``."""
    count, total, squares = sums
    mean = total / count
    return np.stack([mean, np.sqrt(np.maximum(squares / count - mean**2, MIN_STD**2))])


class Normaliser:
    """Reads a cut's log-mels, and normalises them by the speech of the utterance and of its speaker.

    Args:
        speakers: (3, 40) ``speech_sums`` divided by their number of frames, by speaker; the utterances of any other
            speaker are normalised by their own speech alone.
    """

    def __init__(self, speakers: dict[str, np.ndarray]) -> None:
        self.speakers = speakers

    @classmethod
    def load(cls, features_dir: Path) -> Normaliser:
        """The normaliser of a folder that the features stage wrote.

        Raises:
            UserError: the statistics are missing or damaged.
        """
        folder = Path(features_dir)
        names = read_json(folder / "cmvn.json")["speakers"]
        return cls(dict(zip(names, load_array(folder / "cmvn_speakers.npy"), strict=True)))

    def __call__(self, cut: MonoCut) -> np.ndarray:
        """Normalised features of a cut, (T, 40) float32, C-contiguous."""
        return self.normalise(raw_features(cut), cut.supervisions[0].speaker if cut.supervisions else None)

    def normalise(self, features: np.ndarray, speaker: str | None = None) -> np.ndarray:
        """Normalised log-mels (T, 40) from raw ones."""
        features = np.ascontiguousarray(features, dtype=np.float32)
        if not len(features):
            return features
        parts = segments(features)
        if len(parts) == 1:
            return self._normalise_segment(features, find_speech(features), speaker)
        lowest = find_speech(features).level - RECORDING_RANGE
        found = [find_speech(part) for part in parts]
        return np.concatenate([
            self._normalise_segment(part, speech, speaker) if speech.level > lowest else np.full_like(part, QUIET)
            for part, speech in zip(parts, found, strict=True)
        ])  # fmt: skip

    def _normalise_segment(self, features: np.ndarray, speech: Speech, speaker: str | None) -> np.ndarray:
        sums = speech_sums(features, speech)
        if speaker in self.speakers:
            sums += SPEAKER_FRAMES * self.speakers[speaker]
        mean, std = _mean_and_std(sums)
        normalised = (features - (mean + speech.level).astype(np.float32)) * (1 / std).astype(np.float32)
        np.maximum(normalised, np.float32(FLOOR), out=normalised)
        normalised[_far_from(speech.frames)] = QUIET
        return normalised


def _far_from(frames: np.ndarray) -> np.ndarray:
    """(T,) bool: where no frame of ``frames`` is within ``MARGIN``."""
    before = np.concatenate([np.zeros(MARGIN + 1, int), np.cumsum(frames), np.full(MARGIN, frames.sum())])
    return before[2 * MARGIN + 1 :] == before[: len(frames)]
