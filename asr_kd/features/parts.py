"""Parts of a long recording that are recognised one by one, in memory that does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.features.audio import sample_fault

#: In longer recordings (15 s), level and speaker change: they are normalised in segments.
LONG = 1500
#: Recordings of up to 40 s are searched as a whole, longer ones in parts.
WHOLE = 4000
#: Segments have 1.5 to 4 s, and are cut where 0.2 s are quietest.
MIN_SEGMENT, MAX_SEGMENT, SEGMENT_PAUSE = 150, 400, 20
#: Frames (0.3 s) around a cut that are quietest.
PAUSE = 30
#: A part is quiet if its loudest 0.3 s are so much below those of the recording so far, in natural log units (26 dB);
#: and a segment if its level is further below that of the part.
QUIET_RANGE = 6.0


class Part(NamedTuple):
    """Samples of a part, and the recording's frame that it begins with."""

    first: int
    samples: np.ndarray


def usable_parts(
    blocks: Iterable[np.ndarray], rate: int, shift: int, name: str, limit: int = LONG, whole: int = LONG
) -> Iterator[Part]:
    """The ``parts`` of a recording but for those that are digital silence.

    Args:
        rate: of the samples, in Hz.
        name: of the recording.

    Raises:
        UserError: nothing in it can be recognised, or a part has samples that cannot be used.
    """
    fault: str | None = "no samples"
    for part in parts(blocks, shift, limit, whole):
        if not part.samples.any() and fault != "no samples":
            continue  # between others
        fault = sample_fault(part.samples, rate)
        if fault is None:
            yield part
        elif part.samples.any():
            break
    if fault is not None:
        raise UserError(f"{name} cannot be recognised ({fault}): give another recording")


def parts(blocks: Iterable[np.ndarray], shift: int, limit: int = LONG, whole: int = LONG) -> Iterator[Part]:
    """The parts of a recording in which somebody speaks, cut where it is quietest; a short one is one part.

    Args:
        blocks: mono samples, a block after another.
        shift: samples of a frame.
        limit: frames of a part at most.
        whole: a recording of so many frames is one part.
    """
    pending, first, loudest = np.empty(0, np.float32), 0, -np.inf

    def cut() -> Iterator[Part]:
        nonlocal pending, first, loudest
        levels = _levels(pending[: 2 * limit * shift], shift)
        loudest = max(loudest, float(levels.max()))  # of what comes after the part, too
        samples = pending[: _cut(levels, limit) * shift]
        if float(_levels(samples, shift).max()) > loudest - QUIET_RANGE:
            yield Part(first, samples)
        pending, first = pending[len(samples) :], first + len(samples) // shift

    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) > max(2 * limit, whole) * shift:
            yield from cut()
    if not first and len(pending) <= whole * shift:
        limit = whole
    while len(pending):
        yield from cut()


def segment_bounds(loudness: np.ndarray) -> list[int]:
    """Where the segments of a recording begin that are normalised each by itself; those of short ones are one.

    Args:
        loudness: (T,) of its frames.
    """
    bounds = [0]
    if len(loudness) <= LONG:
        return bounds
    averages = np.convolve(loudness, np.ones(SEGMENT_PAUSE) / SEGMENT_PAUSE, "valid")
    while len(loudness) - bounds[-1] > MAX_SEGMENT:
        start = bounds[-1] + MIN_SEGMENT
        pause = averages[start - SEGMENT_PAUSE // 2 : bounds[-1] + MAX_SEGMENT - SEGMENT_PAUSE // 2]
        bounds.append(start + int(pause.argmin()))
    return bounds


def level_of(loudness: np.ndarray) -> float:
    """The level of speech: the mean loudness of frames, weighted by their energy, so that silence does not count."""
    energy = np.exp(loudness - loudness.max())
    return float(energy @ loudness / energy.sum())


def _cut(levels: np.ndarray, limit: int) -> int:
    """How many of the frames become a part, given the level around each."""
    frames = len(levels)
    if frames <= limit:
        return frames
    last = min(limit, frames - limit // 4)  # leave no short rest
    return limit // 2 + int(levels[limit // 2 : last + 1].argmin())


def _levels(samples: np.ndarray, shift: int) -> np.ndarray:
    """The level of 0.3 s around each frame, a natural log of energy."""
    frames = -(-len(samples) // shift)
    power = np.pad(np.square(samples, dtype=np.float64), (0, frames * shift - len(samples)))
    return np.convolve(np.log(power.reshape(frames, -1).mean(1) + 1e-12), np.ones(PAUSE) / PAUSE, "same")[:frames]
