"""GMM features: 13 cepstra of the normalised log-mels, or other features as they are, spliced with their context.

The features of a frame are a linear transform of the cepstra of 9 consecutive frames.  Deltas and delta-deltas are one
such transform (Kaldi's DeltaFeatures with window 2), LDA is another.
"""

from __future__ import annotations

import functools

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.features.front_end import FrontEnd
from asr_kd.features.mels import dct
from asr_kd.features.normalise import Normaliser

NUM_CEPSTRA = 13
#: Features that are no log-mels and have more dimensions are not for Gaussians with diagonal covariances.
MAX_FEATURES = 80
CONTEXT = 4  # frames on either side
LIFTER = 22.0  # Kaldi's --cepstral-lifter


def num_cepstra(front_end: FrontEnd) -> int:
    """The dimension of what ``cepstra`` returns.

    Raises:
        UserError: the features are not for GMMs.
    """
    if front_end.log_mel:
        return min(NUM_CEPSTRA, front_end.num_features)
    if front_end.num_features > MAX_FEATURES:
        raise UserError(
            f"GMMs cannot be trained on {front_end}, but on log-mels, MFCCs, or other features of up to {MAX_FEATURES} "
            "dimensions: align with features that asr_kd.features computes, and copy the senones (asr_kd.hmm.transfer)"
        )
    return front_end.num_features


@functools.lru_cache(maxsize=4)
def _dct(num_mels: int) -> np.ndarray:
    return dct(num_mels, min(NUM_CEPSTRA, num_mels), LIFTER).astype(np.float32)


def cepstra(cut: MonoCut, normaliser: Normaliser) -> np.ndarray:
    """The cepstra of a cut's normalised features, (T, D) float32: 13 of log-mels, other features as they are."""
    features = normaliser(cut)
    return features @ _dct(features.shape[1]) if normaliser.front_end.log_mel else features


def delta_transform(dimension: int) -> np.ndarray:
    """(3 D, 9 D): cepstra, deltas and delta-deltas from 9 frames of D cepstra."""
    window = np.arange(-2, 3) / 10.0
    static = np.zeros(2 * CONTEXT + 1)
    static[CONTEXT] = 1
    delta = np.convolve(static, window[::-1], "same")[::-1]
    scales = np.stack([static, delta, np.convolve(window, window)])
    return np.einsum("ot,ij->oitj", scales, np.eye(dimension)).reshape(3 * dimension, -1)


def splice(cepstra: np.ndarray) -> np.ndarray:
    """(T, D) -> (T, 9 D): each frame with its context; the first and the last frame are repeated at the edges."""
    frames, dim = cepstra.shape
    padded = np.empty((frames + 2 * CONTEXT, dim), cepstra.dtype)
    padded[:CONTEXT], padded[CONTEXT:-CONTEXT], padded[-CONTEXT:] = cepstra[0], cepstra, cepstra[-1]
    step = padded.itemsize
    windows = np.lib.stride_tricks.as_strided(padded, (frames, (2 * CONTEXT + 1) * dim), (dim * step, step))
    return np.ascontiguousarray(windows)


def apply_transform(cepstra: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """Features (T, E) float32 from cepstra (T, D) and a transform (E, 9 D)."""
    return splice(cepstra) @ transform.astype(np.float32).T
