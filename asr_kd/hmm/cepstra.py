"""GMM features: 13 cepstra of the normalised log-mels, spliced with their context.

The features of a frame are a linear transform of the cepstra of 9 consecutive frames.  Deltas and delta-deltas are one
such transform (Kaldi's DeltaFeatures with window 2), LDA is another.
"""

from __future__ import annotations

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.features.filterbanks import NUM_MELS
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


def cepstra(cut: MonoCut, normaliser: Normaliser) -> np.ndarray:
    """The cepstra of a cut's normalised features, (T, 13) float32."""
    return normaliser(cut) @ DCT


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
