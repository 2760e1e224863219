"""Reading audio files, and finding faults in their samples."""

import logging
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError

SAMPLING_RATE = 16000
MIN_SECONDS = 0.1
#: Rates in Hz outside of which a header is taken to be damaged.
MIN_RATE, MAX_RATE = 4_000, 768_000
#: Frames read at once: what a header announces is not trusted for an allocation.
BLOCK_FRAMES = 1 << 20
#: Share of the loudest channel's power below which the mean of the channels counts as cancelled.
CANCELLED = 1e-3


def read_audio(path: Path | str) -> np.ndarray:
    """Mono 16 kHz float32 samples of any audio file that libsndfile reads (channels are averaged, rates converted).

    Raises:
        UserError: the file is missing, damaged or empty, has NaN samples, or a rate outside 4 to 768 kHz.
    """
    import soundfile
    from scipy.signal import resample_poly

    try:
        with soundfile.SoundFile(path) as file:
            rate = file.samplerate
            if not MIN_RATE <= rate <= MAX_RATE:
                raise UserError(f"{path} has a rate of {rate} Hz, outside {MIN_RATE} to {MAX_RATE}: export it again")
            blocks = []
            while len(block := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
                blocks.append(block)
    except (OSError, RuntimeError, TypeError, ValueError) as error:  # TypeError: a name in .raw
        raise UserError(f"{path} cannot be read as audio ({error}): give a WAV, FLAC, OGG or MP3 file") from None
    if not blocks:
        raise UserError(f"{path} has no samples: record it again")
    samples = np.concatenate(blocks)
    if not np.isfinite(samples).all():
        raise UserError(f"{path} has NaN or infinite samples: export it again")
    mono = _mix(samples, path)
    if rate == SAMPLING_RATE:
        return mono
    divisor = np.gcd(rate, SAMPLING_RATE)
    return resample_poly(mono, SAMPLING_RATE // divisor, rate // divisor).astype(np.float32)


def _mix(samples: np.ndarray, path: Path | str) -> np.ndarray:
    """The mean of the channels (T, channels); where they cancel each other, the loudest channel."""
    mono = samples.mean(axis=1)
    power = np.square(samples, dtype=np.float64).mean(axis=0)
    if np.square(mono, dtype=np.float64).mean() >= CANCELLED * power.max():
        return mono
    logging.warning("%s: the channels cancel each other, so the loudest one is used alone", path)
    return np.ascontiguousarray(samples[:, power.argmax()])


def sample_fault(samples: np.ndarray) -> str | None:
    """The reason why features cannot be computed from mono samples, or None."""
    if len(samples) < MIN_SECONDS * SAMPLING_RATE:
        return f"shorter than {MIN_SECONDS} s"
    if not np.isfinite(samples).all():
        return "NaN or infinite samples"
    return None if np.any(samples) else "digital silence: every sample is zero"
