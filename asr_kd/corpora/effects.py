"""What stands between a voice and a recording: a room, noise, a microphone, a level.  Seeded NumPy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import fftconvolve, lfilter

RATE = 16000


@dataclass(frozen=True)
class Difficulty:
    """How hard the recordings are; each range is (low, high), drawn uniformly."""

    snr_db: tuple[float, float] = (5.0, 25.0)  # speech over noise, by utterance
    babble: float = 0.3  # share of the utterances whose noise is other voices
    noise_slope: tuple[float, float] = (0.0, 2.0)  # power falls as 1/f^slope: white 0, pink 1, brown 2
    reverberant: float = 0.3  # share of the speakers that sit in an audible room
    rt60: tuple[float, float] = (0.15, 0.5)  # seconds until the room is 60 dB quieter
    direct_db: tuple[float, float] = (3.0, 12.0)  # direct sound over reverberation
    tilt: tuple[float, float] = (-0.5, 0.5)  # one-pole tone control of the microphone, by speaker
    level_db: tuple[float, float] = (-36.0, -16.0)  # RMS of the recording below full scale


def coloured_noise(samples: int, slope: float, generator: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit RMS, (samples,) float32, whose power falls as 1/f^slope above 50 Hz."""
    size = next_fast_len(samples, real=True)
    spectrum = rfft(generator.standard_normal(size, dtype=np.float32))
    frequency = np.maximum(rfftfreq(size, 1 / RATE), 50.0)
    noise = irfft(spectrum * frequency ** (-slope / 2), size)[:samples]
    return (noise / rms(noise)).astype(np.float32)


def room(rt60: float, direct_db: float, generator: np.random.Generator) -> np.ndarray:
    """Impulse response of a room: the direct sound at sample 0 (so times stay), then decaying noise."""
    time = np.arange(int(rt60 * RATE)) / RATE
    tail = generator.standard_normal(len(time)) * np.exp(-np.log(1000) * time / rt60)
    tail[: int(0.002 * RATE)] = 0
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    return tail.astype(np.float32)


def rms(samples: np.ndarray) -> float:
    """Root mean square, never 0."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) + 1e-9


def record(
    speech: np.ndarray, noise: np.ndarray, response: np.ndarray | None, snr_db: float, tilt: float, level_db: float
) -> np.ndarray:
    """One recording, (samples,) float32 within ±1, from clean speech with silence around it.

    Args:
        speech: (samples,) clean speech at 16 kHz.
        noise: (samples,) of unit RMS.
        response: of the room, None for none.
        snr_db: speech (where there is some) over noise.
        tilt: coefficient of the microphone's tone control, -1 to 1.
        level_db: RMS of the result relative to full scale.
    """
    if response is not None:
        speech = fftconvolve(speech, response)[: len(speech)]
    active = rms(speech[np.abs(speech) > 0.02 * np.abs(speech).max()])
    mixed = speech / active + noise * 10 ** (-snr_db / 20)
    mixed = lfilter([1.0], [1.0, -tilt], mixed) if tilt > 0 else lfilter([1.0, tilt], [1.0], mixed)
    mixed *= 10 ** (level_db / 20) / rms(mixed)
    return (mixed / max(1.0, np.abs(mixed).max() / 0.99)).astype(np.float32)
