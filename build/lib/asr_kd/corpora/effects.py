"""Simulated recording conditions of speech: room, noise, microphone and level.  Seeded NumPy."""

from dataclasses import dataclass

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq
from scipy.signal import fftconvolve, lfilter

RATE = 16000


@dataclass(frozen=True)
class Difficulty:
    """Recording conditions; each range is (low, high) and is sampled uniformly."""

    snr_db: tuple[float, float] = (5.0, 25.0)  # signal-to-noise ratio, per utterance
    babble: float = 0.3  # share of utterances whose noise is other voices
    noise_slope: tuple[float, float] = (0.0, 2.0)  # power falls as 1/f^slope: white 0, pink 1, brown 2
    reverberant: float = 0.3  # share of speakers in an audible room
    rt60: tuple[float, float] = (0.15, 0.5)  # seconds until the reverberation has decayed by 60 dB
    direct_db: tuple[float, float] = (3.0, 12.0)  # ratio of direct sound to reverberation
    tilt: tuple[float, float] = (-0.5, 0.5)  # coefficient of the microphone's one-pole filter, per speaker
    level_db: tuple[float, float] = (-36.0, -16.0)  # RMS level of the recording relative to full scale


def coloured_noise(samples: int, slope: float, generator: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit RMS, (samples,) float32, whose power falls as 1/f^slope above 50 Hz."""
    size = next_fast_len(samples, real=True)
    spectrum = rfft(generator.standard_normal(size, dtype=np.float32))
    frequency = np.maximum(rfftfreq(size, 1 / RATE), 50.0)
    noise = irfft(spectrum * frequency ** (-slope / 2), size)[:samples]
    return (noise / rms(noise)).astype(np.float32)


def room_response(rt60: float, direct_db: float, generator: np.random.Generator) -> np.ndarray:
    """Impulse response of a room: direct sound at sample 0, so that times do not change, then decaying noise."""
    time = np.arange(int(rt60 * RATE)) / RATE
    tail = generator.standard_normal(len(time)) * np.exp(-np.log(1000) * time / rt60)
    tail[: int(0.002 * RATE)] = 0
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2))
    tail[0] = 1
    return tail.astype(np.float32)


def rms(samples: np.ndarray) -> float:
    """Root mean square, always above 0."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) + 1e-9


def record(
    speech: np.ndarray, noise: np.ndarray, response: np.ndarray | None, snr_db: float, tilt: float, level_db: float
) -> np.ndarray:
    """One recording, (samples,) float32 within ±1, from clean speech with silence around it.

    Args:
        speech: (samples,) clean speech at 16 kHz.
        noise: (samples,) of unit RMS.
        response: impulse response of the room, or None.
        snr_db: signal-to-noise ratio, measured where there is speech.
        tilt: coefficient of the microphone's one-pole filter, -1 to 1.
        level_db: RMS of the result relative to full scale.
    """
    if response is not None:
        speech = fftconvolve(speech, response)[: len(speech)]
    active = rms(speech[np.abs(speech) > 0.02 * np.abs(speech).max()])
    mixed = speech / active + noise * 10 ** (-snr_db / 20)
    mixed = lfilter([1.0], [1.0, -tilt], mixed) if tilt > 0 else lfilter([1.0, tilt], [1.0], mixed)
    mixed *= 10 ** (level_db / 20) / rms(mixed)
    return (mixed / max(1.0, np.abs(mixed).max() / 0.99)).astype(np.float32)
