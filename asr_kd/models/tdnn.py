"""Time-delay networks: layers that see a few frames of the layer below, far apart where they are high."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from asr_kd.models.network import fill_quiet


def splice(values: Tensor, offsets: Sequence[int]) -> Tensor:
    """The frames at ``offsets`` from every frame, side by side, (B, T, D) → (B, T − span, offsets · D)."""
    first, span = offsets[0], offsets[-1] - offsets[0]
    count = values.shape[1] - span
    return torch.cat([values[:, o - first : o - first + count] for o in offsets], 2)


class _Affine(nn.Module):
    """Affine layer over spliced frames, ReLU, batch norm and dropout."""

    def __init__(self, inputs: int, width: int, offsets: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.offsets = offsets
        self.affine = nn.Linear(inputs * len(offsets), width)
        self.norm, self.dropout = nn.BatchNorm1d(width, affine=False), nn.Dropout(dropout)

    def forward(self, values: Tensor) -> Tensor:
        values = torch.relu(self.affine(splice(values, self.offsets)))
        return self.dropout(self.norm(values.flatten(0, 1)).view_as(values))


class TDNN(nn.Module):
    """A time-delay network (Peddinti, Povey, Khudanpur 2015).

    Args:
        feature_dim, num_senones: inputs and outputs per frame.
        width: units of each layer.
        offsets: for each layer, the frames of the layer below that it sees (the paper's: 13 frames before and 9 after
            in all).
        dropout: share of units dropped in training.
    """

    def __init__(
        self, feature_dim: int, num_senones: int, width: int = 512,
        offsets: Sequence[Sequence[int]] = ((-2, -1, 0, 1, 2), (-1, 2), (-3, 3), (-7, 2), (0,)), dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if any(list(frames) != sorted(set(frames)) or not frames[0] <= 0 <= frames[-1] for frames in offsets):
            raise ValueError("the offsets of a layer ascend, from 0 or less to 0 or more")
        self.left, self.right = -sum(frames[0] for frames in offsets), sum(frames[-1] for frames in offsets)
        sizes = [feature_dim] + [width] * len(offsets)
        self.hidden = nn.Sequential(
            *(_Affine(size, width, frames, dropout) for size, frames in zip(sizes, offsets, strict=False))
        )
        self.output = _output(width, num_senones)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.output(self.hidden(fill_quiet(features, lengths, self.left, self.right))), lengths


class _Factorised(nn.Module):
    """A layer of two factors, the first semi-orthogonal, with a scaled connection past it (Povey et al. 2018)."""

    BYPASS = 0.66

    def __init__(self, width: int, bottleneck: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.stride = stride
        self.linear = nn.Linear(width * (2 if stride else 1), bottleneck, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        self.affine = _Affine(bottleneck, width, (0, stride) if stride else (0,), dropout)

    def forward(self, values: Tensor) -> Tensor:
        below = values[:, self.stride : values.shape[1] - self.stride]
        spliced = splice(values, (-self.stride, 0)) if self.stride else values
        return torch.add(self.affine(self.linear(spliced)), below, alpha=self.BYPASS)

    @torch.no_grad()
    def constrain(self) -> None:
        """Move the first factor M towards one with M Mᵀ = α² I, for the α that fits best (sections 2.1 to 2.3)."""
        weight = self.linear.weight
        product = weight @ weight.T
        trace, square = product.trace(), product.square().sum()
        scale = square / trace  # α²
        # Far from the constraint a full step could diverge, as in Kaldi.
        ratio = square * len(weight) / trace**2
        speed = torch.where(ratio > 1.1, 0.25, torch.where(ratio > 1.02, 0.5, 1.0)) * 0.125
        product.diagonal().sub_(scale)
        weight.addmm_(product * (-4 * speed / scale), weight.clone())


class TDNNF(nn.Module):
    """A factorised time-delay network (Povey et al. 2018, "Semi-orthogonal low-rank matrix factorization").

    Args:
        feature_dim, num_senones: inputs and outputs per frame.
        width: units of each layer.
        bottleneck: units between the two factors of a layer.
        strides: for each layer, the frames before and after the labelled one that its two factors see.
        dropout: share of units dropped in training.
    """

    def __init__(
        self, feature_dim: int, num_senones: int, width: int = 512, bottleneck: int = 96,
        strides: Sequence[int] = (1, 1, 1, 0, 3, 3, 3), dropout: float = 0.1,
    ) -> None:  # fmt: skip
        super().__init__()
        if min(strides, default=0) < 0:
            raise ValueError("strides are not negative")
        self.left = self.right = 1 + sum(strides)
        self.first = _Affine(feature_dim, width, (-1, 0, 1), dropout)
        self.hidden = nn.ModuleList(_Factorised(width, bottleneck, stride, dropout) for stride in strides)
        self.bottleneck = nn.Linear(width, 2 * bottleneck, bias=False)
        self.output = _output(2 * bottleneck, num_senones)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        values = self.first(fill_quiet(features, lengths, self.left, self.right))
        for layer in self.hidden:
            values = layer(values)
        return self.output(self.bottleneck(values)), lengths

    def constrain(self) -> None:
        """Keep the first factors close to semi-orthogonal; called after each update."""
        for layer in self.hidden:
            layer.constrain()  # type: ignore[operator]


def _output(width: int, num_senones: int) -> nn.Linear:
    layer = nn.Linear(width, num_senones)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
