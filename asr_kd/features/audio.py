"""Reading audio files, and finding faults in their samples."""

from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError

SAMPLING_RATE = 16000
MIN_SECONDS = 0.1


def read_audio(path: Path | str) -> np.ndarray:
    """Mono 16 kHz float32 samples of any audio file that libsndfile reads (channels are averaged, rates converted).

    Raises:
        UserError: the file is missing, damaged or empty, or has NaN samples.
    """
    import soundfile
    from scipy.signal import resample_poly

    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path} cannot be read as audio ({error}): give a WAV, FLAC, OGG or MP3 file") from None
    if not len(samples):
        raise UserError(f"{path} has no samples: record it again")
    if not np.isfinite(samples).all():
        raise UserError(f"{path} has NaN or infinite samples: export it again")
    mono = samples.mean(axis=1)
    if rate == SAMPLING_RATE:
        return mono
    divisor = np.gcd(rate, SAMPLING_RATE)
    return resample_poly(mono, SAMPLING_RATE // divisor, rate // divisor).astype(np.float32)


def sample_fault(samples: np.ndarray) -> str | None:
    """The reason why features cannot be computed from mono samples, or None."""
    if len(samples) < MIN_SECONDS * SAMPLING_RATE:
        return f"shorter than {MIN_SECONDS} s"
    if not np.isfinite(samples).all():
        return "NaN or infinite samples"
    return None if np.any(samples) else "digital silence: every sample is zero"
