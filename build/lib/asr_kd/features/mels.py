"""The mel scale: bands of filters, and cepstra of log-mels."""

import math

import numpy as np


def mel_bands(num_filters: int, low_freq: float, high_freq: float) -> np.ndarray:
    """(num_filters, 3): lower edge, centre and upper edge in Hz of triangular filters, as Kaldi and Lhotse space them.

    Args:
        low_freq, high_freq: the ends of the band in Hz.
    """
    low, high = (1127 * math.log1p(freq / 700) for freq in (low_freq, high_freq))
    edges = 700 * np.expm1(np.linspace(low, high, num_filters + 2) / 1127)
    return np.stack([edges[:-2], edges[1:-1], edges[2:]], axis=1)


def empty_filter(num_filters: int, low_freq: float, high_freq: float, rate: int, window: int) -> int | None:
    """The first filter in which no frequency of the Fourier transform lies, if there is one.

    Args:
        rate, window: sampling rate, and samples of a window, which is padded to a power of two.
    """
    bins = np.arange(2 ** (window - 1).bit_length() // 2) * rate / 2 ** (window - 1).bit_length()
    bands = mel_bands(num_filters, low_freq, high_freq)
    inside = np.searchsorted(bins, bands[:, 2]) - np.searchsorted(bins, bands[:, 0], "right")
    return int(inside.argmin()) if inside.min() < 1 else None


def dct(num_filters: int, num_ceps: int, lifter: float) -> np.ndarray:
    """(num_filters, num_ceps): orthonormal DCT-II with the liftering of Kaldi's MFCCs (0: none)."""
    k = np.arange(num_ceps)
    basis = np.cos(np.pi / num_filters * np.outer(np.arange(num_filters) + 0.5, k)) * np.sqrt(2 / num_filters)
    basis[:, 0] = np.sqrt(1 / num_filters)
    return basis * _liftering(num_ceps, lifter)


def inverse_dct(num_filters: int, num_ceps: int, lifter: float) -> np.ndarray:
    """(num_ceps, num_filters): from cepstra to the log-mels, smoothed, that have them."""
    return (dct(num_filters, num_ceps, 0) / _liftering(num_ceps, lifter)).T


def _liftering(num_ceps: int, lifter: float) -> np.ndarray:
    """(num_ceps,) the factors that Kaldi's --cepstral-lifter gives."""
    k = np.arange(num_ceps)
    return 1 + 0.5 * lifter * np.sin(np.pi * k / lifter) if lifter else np.ones(num_ceps)
