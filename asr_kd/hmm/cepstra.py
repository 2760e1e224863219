"""GMM features: 13 cepstra of the log-mels, without the speaker's mean, and their surroundings.

The features of a frame are a linear map of the cepstra of 9 frames around it.  Deltas and delta-deltas are one
such map (Kaldi's DeltaFeatures with window 2), LDA another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from asr_kd.features import NUM_MELS, Normaliser, raw_features

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


def cepstra(cut: MonoCut, normaliser: Normaliser) -> np.ndarray:
    """(T, 13) float32 cepstra of a cut, less the mean of its speaker (or of the utterance)."""
    raw = raw_features(cut)
    speaker = cut.supervisions[0].speaker if cut.supervisions else None
    row = normaliser.speakers.get(speaker) if normaliser.per_speaker and speaker is not None else None
    mean = raw.mean(0, dtype=np.float64) if row is None else normaliser.statistics[row, 0]
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
