"""Parts of long recordings: which there are, and what is said where nothing can be recognised."""

from __future__ import annotations

import numpy as np
import pytest

from asr_kd.common.errors import UserError
from asr_kd.features.parts import parts, usable_parts

RATE, SHIFT = 16000, 160
NOISE = np.random.default_rng(0).normal(scale=0.1, size=60 * RATE).astype(np.float32)


def lengths(seconds: float, **limits: int) -> list[float]:
    found = list(parts(np.array_split(NOISE[: round(seconds * RATE)], 7), SHIFT, **limits))
    assert sum(len(part.samples) for part in found) == round(seconds * RATE)
    return [len(part.samples) / RATE for part in found]


def test_a_recording_is_whole_up_to_a_length_and_then_cut_into_shorter_parts() -> None:
    assert lengths(14.9) == [14.9] and len(lengths(16)) == 2
    assert lengths(39.9, whole=4000) == [39.9]
    assert len(lengths(41, whole=4000)) > 2 and max(lengths(41, whole=4000)) <= 15
    assert max(lengths(60, limit=500)) <= 5 and min(lengths(60, limit=500)) > 1


def test_parts_of_digital_silence_are_left_out() -> None:
    silence = np.zeros(40 * RATE, np.float32)
    samples = np.concatenate([silence, NOISE[: 10 * RATE], silence])
    found = list(usable_parts([samples], RATE, SHIFT, "a.wav"))
    assert sum(np.count_nonzero(part.samples) for part in found) == 10 * RATE
    for first, part in found:
        np.testing.assert_array_equal(part, samples[first * SHIFT : first * SHIFT + len(part)])


@pytest.mark.parametrize(
    ("samples", "fault"),
    [
        (np.zeros(0), "no samples"), (NOISE[:100], "shorter than 0.1 s"), (np.zeros(50 * RATE), "digital silence"),
        (np.concatenate([NOISE[: 30 * RATE], np.full(5 * RATE, 1e20)]), "samples up to 1e"),
    ],
)  # fmt: skip
def test_a_recording_without_any_is_named(samples: np.ndarray, fault: str) -> None:
    with pytest.raises(UserError, match=rf"a\.wav cannot be recognised \({fault}.*\): give another recording"):
        list(usable_parts([samples.astype(np.float32)], RATE, SHIFT, "a.wav"))
