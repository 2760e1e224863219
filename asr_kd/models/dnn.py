"""The paper's acoustic model: a deep ReLU network over a window of frames (section 4), and its smaller presets."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import torch
from torch import Tensor, nn

#: name -> (hidden layers, units per layer)
PRESETS: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "quarter": (4, 192),
    "small": (4, 256),
    "medium": (4, 512),
    "large": (6, 1024),
    "paper": (8, 2560),
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Everything needed to build a network.

    Attributes:
        layers, width: number of hidden layers, and of units in each.
        num_pdfs: number of senones, the size of the output layer.
        left, right: frames of context before and after the labelled one (20 and 5: the paper's 26 frames, of which the
            21st is labelled).
        feature_dim: log-mel filterbanks per frame.
        dropout: share of hidden units dropped in training.
        batch_norm: normalise the input of every ReLU over the batch (Ioffe and Szegedy 2015).
    """

    layers: int
    width: int
    num_pdfs: int
    left: int = 20
    right: int = 5
    feature_dim: int = 40
    dropout: float = 0.2
    batch_norm: bool = False

    @property
    def window(self) -> int:
        """Frames in the input."""
        return self.left + 1 + self.right


class AcousticModel(nn.Module):
    """Windows of log-mel frames (N, window × feature_dim) to senone logits (N, num_pdfs)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        sizes = [shape.window * shape.feature_dim] + [shape.width] * shape.layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(shape.width) if shape.batch_norm else nn.Identity() for _ in self.hidden
        )
        self.activations = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Dropout(shape.dropout)) for _ in self.hidden)
        self.output = nn.Linear(shape.width, shape.num_pdfs)
        for layer in self.hidden:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, windows: Tensor) -> Tensor:
        values = windows
        for layer, norm, activation in zip(self.hidden, self.norms, self.activations, strict=True):
            values = activation(norm(layer(values)))
        return self.output(values)

    def convert_weights(self, dtype: torch.dtype) -> AcousticModel:
        """Convert the weights of the matrix products in place; inputs must have this dtype then, and logits have it."""
        for layer in (*self.hidden, self.output):
            layer.to(dtype)
        return self

    def num_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def count_parameters(shape: Shape) -> int:
    """Return the number of parameters of a network of this shape, without allocating it."""
    with torch.device("meta"):
        return AcousticModel(shape).num_parameters()
