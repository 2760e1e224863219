"""Stage ``python -m asr_kd.features``: 40 log-mel filterbanks every 10 ms, and their normalisation.

The features on disk are raw; everybody downstream reads them through ``Normaliser``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.features.config import Over
from asr_kd.features.filterbanks import raw_features

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

#: A standard deviation below this (log-mel units) means a dead channel; speech has 1 to 4.
MIN_STD = 0.1


class Normaliser:
    """Reads a cut's log-mel features and normalises them: per speaker (or per utterance), then globally.

    Args:
        per_speaker: use a known speaker's statistics; else those of each utterance.
        speakers: id -> row of ``statistics``.
        statistics: (S, 2, 40) mean and standard deviation of each speaker.
        overall: (2, 40) mean and standard deviation of the training split after the first normalisation.
        over: frames that an utterance's own statistics are taken of.
    """

    def __init__(
        self, per_speaker: bool, speakers: dict[str, int], statistics: np.ndarray, overall: np.ndarray, over: Over
    ) -> None:
        self.per_speaker, self.speakers, self.statistics, self.overall = per_speaker, speakers, statistics, overall
        self.over = over

    @classmethod
    def load(cls, features_dir: Path) -> Normaliser:
        """Read what the features stage wrote.

        Raises:
            UserError: missing or damaged.
        """
        folder = Path(features_dir)
        description = read_json(folder / "cmvn.json")
        try:
            statistics = np.load(folder / "cmvn_speakers.npy", allow_pickle=False)
            overall = np.load(folder / "cmvn_global.npy", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{folder} is damaged ({error}): delete it and run asr_kd.features again") from None
        if "normalise_over" not in description:
            raise UserError(f"{folder} was made by an older version: run asr_kd.features again")
        speakers = {speaker: row for row, speaker in enumerate(description["speakers"])}
        return cls(description["normalise"] == "speaker", speakers, statistics, overall, description["normalise_over"])

    def __call__(self, cut: MonoCut) -> np.ndarray:
        """Normalised features of a cut, (T, 40) float32, C-contiguous."""
        return self.normalise(raw_features(cut), cut.supervisions[0].speaker if cut.supervisions else None)

    def normalise(self, features: np.ndarray, speaker: str | None = None) -> np.ndarray:
        """Normalise raw log-mels (T, 40); a speaker never seen gets this utterance's own statistics."""
        features = np.ascontiguousarray(features, dtype=np.float32)
        row = self.speakers.get(speaker) if self.per_speaker and speaker is not None else None
        if row is None:
            mean, std = moments(sums(frames_for(features, self.over)))
        else:
            mean, std = self.statistics[row]
        # (x − m)/s, then (x − M)/S, in one pass over the frames.
        scale = 1 / (std * self.overall[1])
        shift = -mean * scale - self.overall[0] / self.overall[1]
        return features * scale.astype(np.float32) + shift.astype(np.float32)


def frames_for(features: np.ndarray, over: Over) -> np.ndarray:
    """Those rows of raw log-mels (T, 40) that mean and variance are taken of."""
    if over == "all":
        return features
    loudness = features.mean(1)
    return features[loudness >= np.percentile(loudness, [5, 95]).mean()]


def sums(features: np.ndarray) -> np.ndarray:
    """(3, 40) float64: the number of frames, Σx and Σx²."""
    wide = features.astype(np.float64)
    return np.stack([np.full(features.shape[1], len(wide)), wide.sum(0), np.square(wide).sum(0)])


def moments(summed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (at least ``MIN_STD``) from ``sums``."""
    count, total, squares = summed
    mean = total / np.maximum(count, 1)
    return mean, np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, MIN_STD**2))
