"""Log-mels by products against Lhotse's in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from front_ends import front_end
from lhotse.features.base import get_extractor_type
from torch import Tensor

from asr_kd.bundle.network import LogMels
from asr_kd.features.extractors import SCALE
from asr_kd.features.front_end import FBANK, FrontEnd


def lhotse_log_mels(front_end: FrontEnd, samples: Tensor) -> Tensor:
    """(N,) → (T, F), float64, without padding."""
    lhotse = get_extractor_type(FBANK).from_dict({"feature_type": FBANK, **(front_end.settings or {})}).extractor
    framing = lhotse.double().wav2win
    frames = (samples.double() * SCALE).unfold(0, framing._length, framing._shift)[None]
    spectra = torch.fft.rfft(framing._forward_strided(frames)[0], n=lhotse.fft_length)
    floor = torch.finfo(torch.float32).eps
    return (spectra.abs().square() @ lhotse._fb).clamp_min(floor).log()[0]


@pytest.mark.parametrize(
    "settings",
    [{}, {"frame_length": 0.032}, {"frame_length": 0.0200625}, {"window_type": "hamming"}, {"remove_dc_offset": False},
     {"preemph_coeff": 0.0}, {"num_filters": 23, "low_freq": 100.0}],
    ids=lambda settings: str(settings),
)  # fmt: skip
def test_log_mels_are_lhotses(settings: dict[str, Any]) -> None:
    made = front_end()
    made = dataclasses.replace(made, settings={**(made.settings or {}), **settings})
    torch.manual_seed(0)
    for samples in (0.1 * torch.randn(16000) + 0.3, 1e-4 * torch.randn(9001), 0.1 * torch.randn(2000).cumsum(0).sin()):
        got, expected = LogMels(made)(samples), lhotse_log_mels(made, samples)
        torch.testing.assert_close(got.double(), expected, atol=1e-3, rtol=0)
