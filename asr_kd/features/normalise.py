"""Normalisation of the stored raw features: all later stages read features through ``Normaliser``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.storage import load_array, read_json
from asr_kd.features.config import Over
from asr_kd.features.filterbanks import raw_features
from asr_kd.features.statistics import mean_and_std, power_sums, select_frames


class Normaliser:
    """Reads a cut's log-mel features and normalises them per speaker (or per utterance), then globally.

    Args:
        per_speaker: use the statistics of known speakers; otherwise those of each utterance.
        speakers: id -> row of ``statistics``.
        statistics: (S, 2, 40) mean and standard deviation of each speaker.
        overall: (2, 40) mean and standard deviation of the training split after the first normalisation.
        over: frames from which an utterance's own statistics are computed.
    """

    def __init__(
        self, per_speaker: bool, speakers: dict[str, int], statistics: np.ndarray, overall: np.ndarray, over: Over
    ) -> None:
        self.per_speaker, self.speakers, self.statistics, self.overall = per_speaker, speakers, statistics, overall
        self.over = over

    @classmethod
    def load(cls, features_dir: Path) -> Normaliser:
        """The normaliser of a folder that the features stage wrote.

        Raises:
            UserError: the statistics are missing or damaged.
        """
        folder = Path(features_dir)
        description = read_json(folder / "cmvn.json")
        statistics = load_array(folder / "cmvn_speakers.npy")
        overall = load_array(folder / "cmvn_global.npy")
        speakers = {speaker: row for row, speaker in enumerate(description["speakers"])}
        return cls(description["normalise"] == "speaker", speakers, statistics, overall, description["normalise_over"])

    def __call__(self, cut: MonoCut) -> np.ndarray:
        """Normalised features of a cut, (T, 40) float32, C-contiguous."""
        return self.normalise(raw_features(cut), cut.supervisions[0].speaker if cut.supervisions else None)

    def normalise(self, features: np.ndarray, speaker: str | None = None) -> np.ndarray:
        """Normalised log-mels (T, 40) from raw ones, by the utterance's own statistics if the speaker is unknown."""
        features = np.ascontiguousarray(features, dtype=np.float32)
        row = self.speakers.get(speaker) if self.per_speaker and speaker is not None else None
        if row is None:
            mean, std = mean_and_std(power_sums(select_frames(features, self.over)))
        else:
            mean, std = self.statistics[row]
        # (x − m)/s, then (x − M)/S, in one pass over the frames.
        scale = 1 / (std * self.overall[1])
        shift = -mean * scale - self.overall[0] / self.overall[1]
        return features * scale.astype(np.float32) + shift.astype(np.float32)
