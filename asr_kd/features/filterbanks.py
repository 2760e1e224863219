"""Log-mel filterbank features: computed from samples, or read from storage."""

import functools

import numpy as np
from lhotse import Fbank, FbankConfig
from lhotse.cut import MonoCut
from lhotse.utils import compute_num_frames_from_samples

from asr_kd.common.errors import UserError
from asr_kd.common.files import UNREADABLE
from asr_kd.corpora.cuts import check_array
from asr_kd.features.audio import SAMPLING_RATE, sample_fault

NUM_MELS = 40
FRAME_SHIFT = 0.01  # seconds
#: Filters between 300 Hz and 2.2 kHz.
VOWEL_FILTERS = slice(5, 23)
#: Samples count in steps of 16 bits, as Kaldi's do, so that quiet floating-point audio stays above the floor of the
#: logarithm, which is 1.2e-7.
SCALE = np.float32(1 << 15)
#: Frames computed at once.
CHUNK_FRAMES = 12000


@functools.cache
def _extractor() -> Fbank:
    return Fbank(
        FbankConfig(
            sampling_rate=SAMPLING_RATE, frame_length=0.025, frame_shift=FRAME_SHIFT, dither=0.0,
            snip_edges=False, num_filters=NUM_MELS, low_freq=20.0, high_freq=7800.0,
        )
    )  # fmt: skip


def log_mels(samples: np.ndarray) -> np.ndarray:
    """Raw log-mels (T, 40) of 16 kHz samples, float32; T = round(seconds / 0.01).

    They are computed in chunks, which bounds memory: a frame needs the samples of its neighbours, and no others.
    """
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    frames = compute_num_frames_from_samples(len(samples), FRAME_SHIFT, SAMPLING_RATE)
    features = np.empty((frames, NUM_MELS), np.float32)
    shift = round(FRAME_SHIFT * SAMPLING_RATE)
    for start in range(0, frames, CHUNK_FRAMES):
        first, stop = max(start - 1, 0), start + CHUNK_FRAMES
        chunk = _extractor().extract(samples[first * shift : (stop + 1) * shift] * SCALE, SAMPLING_RATE)
        features[start:stop] = chunk[start - first :][:CHUNK_FRAMES]
    return features


def extract(samples: np.ndarray, sampling_rate: int = SAMPLING_RATE) -> np.ndarray:
    """Raw log-mels (T, 40) of a mono waveform, float32 in [-1, 1], after checking it.

    Raises:
        UserError: the waveform is not sampled at 16 kHz, is shorter than 0.1 s, or has unusable samples.
    """
    if sampling_rate != SAMPLING_RATE:
        raise UserError(f"the audio is sampled at {sampling_rate} Hz: resample it to {SAMPLING_RATE} Hz first")
    if fault := sample_fault(samples):
        raise UserError(f"no features can be computed ({fault}): give another recording")
    return log_mels(samples)


def raw_features(cut: MonoCut) -> np.ndarray:
    """The stored raw log-mels of a cut, (T, 40) float32.

    Raises:
        UserError: the stored features are missing or damaged.
    """
    try:
        features = np.ascontiguousarray(cut.load_features(), dtype=np.float32)
    except UNREADABLE as error:
        raise UserError(f"the features of {cut.id} cannot be read ({error}): run asr_kd.features again") from None
    if features.ndim != 2 or features.shape[1] != NUM_MELS:
        raise UserError(f"the features of {cut.id} have shape {features.shape}, not (T, {NUM_MELS}): make them again")
    return check_array(cut, "features", features)
