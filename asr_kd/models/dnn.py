"""The paper's acoustic model: a window of frames through ReLU layers to one logit per senone."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_linear_bn_eval

from asr_kd.models.network import NETWORKS, Network, fill_quiet

#: name -> (hidden layers, units per layer)
PRESETS: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "quarter": (4, 192),
    "small": (4, 256),
    "medium": (4, 512),
    "large": (6, 1024),
    "paper": (8, 2560),
}


def dnn(feature_dim: int, num_senones: int, preset: str = "medium", **args: Any) -> Network:
    """The description of a ``DNN`` of a preset's size; arguments that are given come before the preset's."""
    layers, width = PRESETS[preset]
    return Network(NETWORKS["dnn"], feature_dim, num_senones, {"layers": layers, "width": width, **args})


class DNN(nn.Module):
    """Windows of frames to senone logits; a window classifier (asr_kd.models.network).

    Args:
        feature_dim: features per frame.
        num_senones: number of senones, the size of the output layer.
        layers, width: number of hidden layers, and of units in each.
        left, right: frames of context before and after the labelled one (20 and 5: the paper's 26 frames, of which the
            21st is labelled).
        dropout: share of hidden units dropped in training.
        batch_norm: normalise the input of every ReLU over the batch (Ioffe and Szegedy 2015).
    """

    def __init__(
        self, feature_dim: int, num_senones: int, layers: int = 4, width: int = 512, left: int = 20, right: int = 5,
        dropout: float = 0.2, batch_norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_senones, self.layers, self.width, self.batch_norm = num_senones, layers, width, batch_norm
        self.left, self.right, self.dropout = left, right, dropout
        sizes = [(left + 1 + right) * feature_dim] + [width] * layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) if batch_norm else nn.Identity() for _ in self.hidden)
        self.activations = nn.ModuleList(nn.Sequential(nn.ReLU(), nn.Dropout(dropout)) for _ in self.hidden)
        self.output = nn.Linear(width, num_senones)
        for layer in self.hidden:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward_windows(self, windows: Tensor) -> Tensor:
        """Logits (N, num_senones) of windows (N, (left + 1 + right) · feature_dim)."""
        values = windows
        for layer, norm, activation in zip(self.hidden, self.norms, self.activations, strict=True):
            values = activation(norm(layer(values)))
        return self.output(values)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        padded = fill_quiet(features, lengths, self.left, self.right)
        windows = padded.unfold(1, self.left + 1 + self.right, 1).transpose(2, 3).flatten(2)
        return self.forward_windows(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]), lengths

    def convert_weights(self, dtype: torch.dtype) -> DNN:
        """Convert the weights of the matrix products in place; inputs must have this dtype then, and logits have it."""
        for layer in (*self.hidden, self.output):
            layer.to(dtype)
        return self

    def fold_batch_norm(self) -> DNN:
        """Make batch norm a part of the layers before it, in place; for evaluation alone."""
        for place, norm in enumerate(self.norms):
            if isinstance(norm, nn.BatchNorm1d):
                layer = self.hidden[place]
                assert isinstance(layer, nn.Linear)
                self.hidden[place] = fuse_linear_bn_eval(layer, norm)
        self.norms = nn.ModuleList(nn.Identity() for _ in self.norms)
        return self
