"""Means and variances of features, by speaker and of the training split (CMVN)."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from asr_kd.common.storage import save_array, write_json
from asr_kd.features.config import Config, Over
from asr_kd.features.filterbanks import NUM_MELS

#: A smaller standard deviation (in log-mel units) means a dead channel; that of speech is 1 to 4.
MIN_STD = 0.1


def select_frames(features: np.ndarray, over: Over) -> np.ndarray:
    """The rows of raw log-mels (T, 40) from which mean and variance are computed."""
    if over == "all":
        return features
    loudness = features.mean(1)
    return features[loudness >= np.percentile(loudness, [5, 95]).mean()]


def power_sums(features: np.ndarray) -> np.ndarray:
    """(3, 40) float64: the number of frames, Σx and Σx²."""
    wide = features.astype(np.float64)
    return np.stack([np.full(features.shape[1], len(wide)), wide.sum(0), np.square(wide).sum(0)])


def mean_and_std(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (at least ``MIN_STD``), both (40,), from ``power_sums``."""
    count, total, squares = sums
    mean = total / np.maximum(count, 1)
    return mean, np.sqrt(np.maximum(squares / np.maximum(count, 1) - mean**2, MIN_STD**2))


class CorpusStatistics:
    """Sums over the features of a corpus.

    Attributes:
        speakers: (2, 3, 40) power sums of each speaker: of the selected frames (see ``select_frames``), and of all.
        normalised: (3, 40) power sums of the training split after normalisation by speaker or utterance.
    """

    def __init__(self) -> None:
        self.speakers: dict[str, np.ndarray] = defaultdict(lambda: np.zeros((2, 3, NUM_MELS)))
        self.normalised = np.zeros((3, NUM_MELS))

    def add_normalised(self, sums: np.ndarray) -> None:
        """Add a speaker's or utterance's frames to ``normalised``, given its (2, 3, 40) sums.

        Σ and Σ² of (x − m)/s follow from those of x, so the features are not read again.
        """
        mean, std = mean_and_std(sums[0])
        count, total, squares = sums[1]
        self.normalised += np.stack(
            [count, (total - count * mean) / std, (squares - 2 * mean * total + count * mean**2) / std**2]
        )

    def write(self, out: Path, config: Config) -> None:
        """Write cmvn.json, cmvn_speakers.npy (S, 2, 40) and cmvn_global.npy (2, 40)."""
        speakers = sorted(self.speakers)
        rows = [mean_and_std(self.speakers[speaker][0]) for speaker in speakers]
        save_array(out / "cmvn_speakers.npy", np.array(rows).reshape(-1, 2, NUM_MELS))
        save_array(out / "cmvn_global.npy", np.array(mean_and_std(self.normalised)))
        description = {
            "normalise": config.normalise, "normalise_over": config.normalise_over,
            "train_frames": int(self.normalised[0, 0]), "speakers": speakers,
        }  # fmt: skip
        write_json(out / "cmvn.json", description)
