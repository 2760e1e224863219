"""GMM features: 13 cepstra of the log-mels, without their mean, and their surroundings.

The features of a frame are a linear map of the cepstra of 9 frames around it.  Deltas and delta-deltas are one
such map (Kaldi's DeltaFeatures with window 2), LDA another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.features.filterbanks import NUM_MELS, raw_features
from asr_kd.features.normalise import Normaliser

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

NUM_CEPSTRA = 13
CONTEXT = 4  # frames on either side
LIFTER = 22.0  # Kaldi's --cepstral-lifter


def _dct() -> np.ndarray:
    """(40, 13): orthonormal DCT-II, liftered as Kaldi's MFCC."""
    k = np.arange(NUM_CEPSTRA)
    basis = np.cos(np.pi / NUM_MELS * np.outer(np.arange(NUM_MELS) + 0.5, k)) * np.sqrt(2 / NUM_MELS)
    basis[:, 0] = np.sqrt(1 / NUM_MELS)
    return basis * (1 + 0.5 * LIFTER * np.sin(np.pi * k / LIFTER))


DCT = _dct().astype(np.float32)


@dataclass(frozen=True)
class CepstralMeans:
    """Which mean is taken off a cut's cepstra.

    Attributes:
        speakers: speaker -> mean log-mels (40,); a cut of any other speaker loses the mean of its own frames.
    """

    speakers: Mapping[str, np.ndarray]

    @classmethod
    def load(cls, folder: Path, by: str) -> CepstralMeans:
        """From the statistics of a features folder, or for ``by`` = "utterance" from none.

        Raises:
            UserError: the folder is missing or damaged.
        """
        if by == "utterance":
            return cls({})
        normaliser = Normaliser.load(folder)
        return cls({name: normaliser.statistics[row, 0] for name, row in normaliser.speakers.items()})

    def cepstra(self, cut: MonoCut) -> np.ndarray:
        """(T, 13) float32 cepstra of a cut."""
        raw = raw_features(cut)
        mean = self.speakers.get(cut.supervisions[0].speaker) if cut.supervisions else None
        if mean is None:
            mean = raw.mean(0, dtype=np.float64)
        return (raw - mean.astype(np.float32)) @ DCT


def delta_map() -> np.ndarray:
    """(39, 117): cepstra, deltas and delta-deltas from 9 frames of 13 cepstra."""
    window = np.arange(-2, 3) / 10.0
    plain = np.zeros(2 * CONTEXT + 1)
    plain[CONTEXT] = 1
    delta = np.convolve(plain, window[::-1], "same")[::-1]
    scales = np.stack([plain, delta, np.convolve(window, window)])
    return np.einsum("ot,ij->oitj", scales, np.eye(NUM_CEPSTRA)).reshape(3 * NUM_CEPSTRA, -1)


def splice(cepstra: np.ndarray) -> np.ndarray:
    """(T, 13) -> (T, 117): each frame with its neighbours; the first and last frame are repeated at the edges."""
    frames = len(cepstra)
    rows = np.clip(np.arange(frames)[:, None] + np.arange(-CONTEXT, CONTEXT + 1), 0, frames - 1)
    return cepstra[rows].reshape(frames, -1)


def apply_map(cepstra: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """(T, 13) and (D, 117) -> (T, D) float32 features."""
    return splice(cepstra) @ transform.astype(np.float32).T
