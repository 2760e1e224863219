"""Parts of a long recording that are recognised one by one, in memory that does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from asr_kd.runtime.bundle import Bundle

#: A longer recording (15 s) is cut where it is quietest, since level and speaker change; and so much around a cut is
#: looked at (0.3 s).
LONG, PAUSE = 1500, 30
#: A part is quiet if its loudest 0.3 s are so much below those of the recording so far, in natural log units (26 dB).
QUIET_RANGE = 6.0


class Part(NamedTuple):
    """Samples of a part, and the recording's frame that it begins with."""

    first: int
    samples: np.ndarray


def parts(bundle: Bundle, blocks: Iterable[np.ndarray]) -> Iterator[Part]:
    """The parts of a recording, given as blocks of samples, in which somebody speaks; a short one is one part."""
    pending, first, loudest = np.empty(0, np.float32), 0, -np.inf
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) > 2 * LONG * bundle.shift:
            part, pending, loudest = _next(bundle, pending, loudest)
            yield from _spoken(bundle, first, part, loudest)
            first += len(part) // bundle.shift
    while len(pending):
        part, pending, loudest = _next(bundle, pending, loudest)
        yield from _spoken(bundle, first, part, loudest)
        first += len(part) // bundle.shift


def _next(bundle: Bundle, pending: np.ndarray, loudest: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The next part, the samples after it, and the level of the loudest 0.3 s so far, 15 s after it among them."""
    levels = _levels(bundle, pending[: 2 * LONG * bundle.shift])
    loudest = max(loudest, float(levels.max()))
    frames = len(levels)
    if frames <= LONG:
        return pending, pending[:0], loudest
    last = min(LONG, frames - LONG // 4)  # leave no short rest
    stop = (LONG // 2 + int(levels[LONG // 2 : last + 1].argmin())) * bundle.shift
    return pending[:stop], pending[stop:], loudest


def _spoken(bundle: Bundle, first: int, samples: np.ndarray, loudest: float) -> Iterator[Part]:
    if float(_levels(bundle, samples).max()) > loudest - QUIET_RANGE:
        yield Part(first, samples)


def _levels(bundle: Bundle, samples: np.ndarray) -> np.ndarray:
    """The level of 0.3 s around each frame, a natural log of energy."""
    frames = -(-len(samples) // bundle.shift)
    power = np.pad(np.square(samples, dtype=np.float64), (0, frames * bundle.shift - len(samples)))
    return np.convolve(np.log(power.reshape(frames, -1).mean(1) + 1e-12), np.ones(PAUSE) / PAUSE, "same")[:frames]
