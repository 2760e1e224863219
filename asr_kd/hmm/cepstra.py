"""GMM features: 13 mean-normalised cepstra of the log-mel filterbanks, spliced with their context.

The features of a frame are a linear transform of the cepstra of 9 consecutive frames.  Deltas and delta-deltas are one
such transform (Kaldi's DeltaFeatures with window 2), LDA is another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.features.filterbanks import NUM_MELS, raw_features
from asr_kd.features.normalise import Normaliser

NUM_CEPSTRA = 13
CONTEXT = 4  # frames on either side
LIFTER = 22.0  # Kaldi's --cepstral-lifter


def _dct() -> np.ndarray:
    """(40, 13): orthonormal DCT-II with the liftering of Kaldi's MFCCs."""
    k = np.arange(NUM_CEPSTRA)
    basis = np.cos(np.pi / NUM_MELS * np.outer(np.arange(NUM_MELS) + 0.5, k)) * np.sqrt(2 / NUM_MELS)
    basis[:, 0] = np.sqrt(1 / NUM_MELS)
    return basis * (1 + 0.5 * LIFTER * np.sin(np.pi * k / LIFTER))


DCT = _dct().astype(np.float32)


@dataclass(frozen=True)
class CepstralMeans:
    """Cepstral mean normalisation (CMN).

    Attributes:
        speakers: mean log-mels (40,) per speaker; the cuts of any other speaker are normalised per utterance.
    """

    speakers: Mapping[str, np.ndarray]

    @classmethod
    def load(cls, folder: Path, by: str) -> CepstralMeans:
        """Read the speakers' statistics in a features folder; ``by`` = "utterance" needs none.

        Raises:
            UserError: the folder is missing or damaged.
        """
        if by == "utterance":
            return cls({})
        normaliser = Normaliser.load(folder)
        return cls({name: normaliser.statistics[row, 0] for name, row in normaliser.speakers.items()})

    def cepstra(self, cut: MonoCut) -> np.ndarray:
        """Return the normalised cepstra of a cut, (T, 13) float32."""
        raw = raw_features(cut)
        mean = self.speakers.get(cut.supervisions[0].speaker) if cut.supervisions else None
        if mean is None:
            mean = raw.mean(0, dtype=np.float64)
        return (raw - mean.astype(np.float32)) @ DCT


def delta_transform() -> np.ndarray:
    """(39, 117): cepstra, deltas and delta-deltas from 9 frames of 13 cepstra."""
    window = np.arange(-2, 3) / 10.0
    static = np.zeros(2 * CONTEXT + 1)
    static[CONTEXT] = 1
    delta = np.convolve(static, window[::-1], "same")[::-1]
    scales = np.stack([static, delta, np.convolve(window, window)])
    return np.einsum("ot,ij->oitj", scales, np.eye(NUM_CEPSTRA)).reshape(3 * NUM_CEPSTRA, -1)


def splice(cepstra: np.ndarray) -> np.ndarray:
    """(T, 13) -> (T, 117): each frame with its context; the first and the last frame are repeated at the edges."""
    frames = len(cepstra)
    rows = np.clip(np.arange(frames)[:, None] + np.arange(-CONTEXT, CONTEXT + 1), 0, frames - 1)
    return cepstra[rows].reshape(frames, -1)


def apply_transform(cepstra: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Features (T, D) float32 from cepstra (T, 13) and a transform (D, 117)."""
    return splice(cepstra) @ transform.astype(np.float32).T
