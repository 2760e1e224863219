"""Networks of torchaudio with attention, in segments, so that neither latency nor memory grows with the utterance."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchaudio import models

from asr_kd.models.network import fill_quiet


class Conformer(nn.Module):
    """torchaudio's Conformer (Gulati et al. 2020) over segments, each with the frames around it.

    Args:
        feature_dim, num_senones: inputs and outputs per frame.
        layers, width, heads: number of layers, of units in each, and of attention heads.
        kernel: frames that the convolutions of a layer see, an odd number.
        dropout: share of units dropped in training.
        segment, left, right: frames of a segment, and those before and after it that it sees.
    """

    def __init__(
        self, feature_dim: int, num_senones: int, layers: int = 4, width: int = 144, heads: int = 4, kernel: int = 15,
        dropout: float = 0.1, segment: int = 64, left: int = 64, right: int = 32,
    ) -> None:  # fmt: skip
        super().__init__()
        self.segment, self.left, self.right = segment, left, right
        self.input = nn.Linear(feature_dim, width)
        # Group norm: batches are small, and what a chunk gives may not depend on the others.
        self.hidden = models.Conformer(width, heads, 4 * width, layers, kernel, dropout, use_group_norm=True)
        self.output = nn.Linear(width, num_senones)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        batch, frames, _ = features.shape
        missing = -frames % self.segment
        padded = fill_quiet(features, lengths, self.left, missing + self.right)
        width = self.left + self.segment + self.right
        windows = padded.unfold(1, width, self.segment).transpose(2, 3).flatten(0, 1)
        every = torch.full((len(windows),), width, device=features.device)
        values = self.hidden(self.input(windows), every)[0][:, self.left : self.left + self.segment]
        return self.output(values.reshape(batch, frames + missing, -1)[:, :frames]), lengths


class Emformer(nn.Module):
    """torchaudio's Emformer (Shi et al. 2021), which streams: segments attend to what was before them.

    Args:
        feature_dim, num_senones: inputs and outputs per frame.
        layers, width, heads: number of layers, of units in each, and of attention heads.
        dropout: share of units dropped in training.
        segment: frames that are computed together.
        context: frames before a segment that each layer sees, a multiple of ``segment``.
        right: frames after a segment that it sees.
    """

    def __init__(
        self, feature_dim: int, num_senones: int, layers: int = 4, width: int = 192, heads: int = 4,
        dropout: float = 0.1, segment: int = 16, context: int = 32, right: int = 8,
    ) -> None:  # fmt: skip
        super().__init__()
        if context % segment:
            raise ValueError(f"a context of {context} frames is no multiple of a segment of {segment}")
        self.segment, self.left, self.right = segment, layers * context, right
        self.input = nn.Linear(feature_dim, width)
        self.hidden = models.Emformer(
            width, heads, 4 * width, layers, segment, dropout, left_context_length=context, right_context_length=right
        )
        self.output = nn.Linear(width, num_senones)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        values = self.input(fill_quiet(features, lengths, 0, self.right))
        return self.output(self.hidden(values, lengths)[0]), lengths
