"""Log-mel filterbanks of samples, and of cuts whose features are stored."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np
from lhotse import Fbank, FbankConfig
from lhotse.cut import MonoCut
from lhotse.utils import compute_num_frames_from_samples

from asr_kd.common.errors import UserError
from asr_kd.features.audio import SAMPLING_RATE, sample_fault

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

NUM_MELS = 40


def raw_features(cut: MonoCut) -> np.ndarray:
    """Raw log-mels of a cut, (T, 40) float32.

    Raises:
        UserError: the stored features are missing or damaged.
    """
    try:
        return np.ascontiguousarray(cut.load_features(), dtype=np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"the features of {cut.id} cannot be read ({error}): run asr_kd.features again") from None


def extract(samples: np.ndarray, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Raw log-mels (T, 40) of one mono waveform, float32 in [-1, 1]; T = round(seconds / 0.01).

    Raises:
        UserError: not 16 kHz, or shorter than 0.1 s.
    """
    if sampling_rate != SAMPLING_RATE:
        raise UserError(f"audio at {sampling_rate} Hz: resample it to {SAMPLING_RATE} Hz first")
    fault = sample_fault(samples)
    if fault:
        raise UserError(f"no features: {fault}")
    return log_mels(samples)


FRAME_SHIFT = 0.01


@functools.cache
def _extractor() -> Fbank:
    return Fbank(
        FbankConfig(
            sampling_rate=SAMPLING_RATE, frame_length=0.025, frame_shift=FRAME_SHIFT, dither=0.0,
            snip_edges=False, num_filters=NUM_MELS, low_freq=20.0, high_freq=7800.0,
        )
    )  # fmt: skip


def log_mels(samples: np.ndarray) -> np.ndarray:
    """Raw log-mels of 16 kHz samples: (T, 40) float32, T = round(seconds / 0.01)."""
    features = _extractor().extract(np.ascontiguousarray(samples, dtype=np.float32), SAMPLING_RATE)
    frames = compute_num_frames_from_samples(len(samples), FRAME_SHIFT, SAMPLING_RATE)
    assert features.shape == (frames, NUM_MELS), (features.shape, frames)
    return np.ascontiguousarray(features)
