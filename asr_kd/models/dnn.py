"""The paper's acoustic model: a deep ReLU network over a window of frames (section 4), and its smaller presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr_kd.common import distributed

#: name -> (hidden layers, units a layer)
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
        layers, width: hidden layers and units in each.
        num_pdfs: senones, the size of the output layer.
        left, right: frames of context before and after the labelled one (20 and 5: the paper's 26 frames,
            of which the 21st is labelled).
        feature_dim: log-mel filterbanks a frame.
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
        return self.left + 1 + self.right


class _ReluDropout(torch.autograd.Function):
    """ReLU and dropout in one, in place: only the output is kept, which the next layer keeps anyway."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, mask: Tensor, scale: float) -> Tensor:
        output = inputs.relu_().mul_(mask)
        ctx.mark_dirty(output)
        ctx.save_for_backward(output)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (output,) = ctx.saved_tensors
        # torch.where took a fifth of a training step on the CPU: it is not vectorised for bfloat16.
        return torch.ops.aten.threshold_backward(gradient, output, 0).mul_(ctx.scale), None, None


class MaskPool:
    """Dropout masks as slices of one pool of random bits.

    Drawing fresh bits for every layer and batch took 30 % of an epoch on the CPU.  The pool is redrawn
    at every ``reseed`` (each epoch) and each mask starts at a random place in it.
    """

    SIZE = 1 << 22

    def __init__(self, dropout: float, stream: int = 0) -> None:
        self.dropout, self.stream = dropout, stream
        self.scale = 1.0 / (1.0 - dropout)
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        self.generator = np.random.default_rng([seed, 1, self.stream] if self.stream else [seed, 1])
        self.pool: Tensor | None = None

    def mask(self, like: Tensor) -> Tensor:
        """A mask of 0 and 1/(1 − dropout), shaped and typed as ``like``."""
        size = like.numel()
        if self.pool is None or self.pool.dtype != like.dtype or self.pool.numel() < 2 * size:
            kept = self.generator.random(max(self.SIZE, 2 * size), dtype=np.float32) >= self.dropout
            self.pool = torch.from_numpy(kept).to(device=like.device, dtype=like.dtype).mul_(self.scale)
        start = int(self.generator.integers(self.pool.numel() - size))
        return self.pool[start : start + size].view(like.shape)


class Masks:
    """Dropout masks of batches that come from several streams: a stream's do not depend on who else reads which.

    Attributes:
        streams: examples of each stream in the next batch, which follow one another; empty: all are of one.
    """

    def __init__(self, dropout: float) -> None:
        self.dropout, self.scale = dropout, 1.0 / (1.0 - dropout)
        self.streams: Mapping[int, int] = {}
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        self.seed = seed
        self.pools: dict[int, MaskPool] = {}

    def mask(self, like: Tensor) -> Tensor:
        """See ``MaskPool.mask``."""
        streams = self.streams or {0: len(like)}
        parts = [self._pool(s).mask(part) for s, part in zip(streams, like.split(list(streams.values())), strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _pool(self, stream: int) -> MaskPool:
        if stream not in self.pools:
            self.pools[stream] = MaskPool(self.dropout, stream)
            self.pools[stream].reseed(self.seed)
        return self.pools[stream]


class _BatchNorm(nn.BatchNorm1d):
    """Normalises over the batch of all processes; batches too small for statistics by the running ones.

    Attributes:
        examples: in the batch of all processes; 0: this process's are all.
    """

    FEWEST = 32
    examples = 0

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or (self.examples or len(values)) < self.FEWEST:
            return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(values) if distributed.rank().size == 1 else self._over_all(values)

    def _over_all(self, values: Tensor) -> Tensor:
        # Every process's count, mean and sum of squares around it, in its own row: a sum gathers them.
        me, wide = distributed.rank(), values.float()
        mine = wide.mean(0)
        row = torch.stack([torch.full_like(mine, len(wide)), mine, (wide - mine).square().sum(0)])
        rows = F.pad(row[None], (0, 0, 0, 0, me.number, me.size - 1 - me.number))
        count, mean, squares = distributed.all_reduce_sum(rows).unbind(1)
        total = count.sum(0)
        centre = (count * mean).sum(0) / total
        spread = (squares + count * (mean - centre).square()).sum(0) / total
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(centre, self.momentum)
            self.running_var.lerp_(spread * total / (total - 1), self.momentum)
        return ((wide - centre) * (self.weight * (spread + self.eps).rsqrt()) + self.bias).to(values.dtype)


class AcousticModel(nn.Module):
    """Windows of log-mel frames (N, window × feature_dim) to senone logits (N, num_pdfs)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        sizes = [shape.window * shape.feature_dim] + [shape.width] * shape.layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        norm = _BatchNorm if shape.batch_norm else nn.Identity
        self.norms = nn.ModuleList(norm(shape.width) for _ in self.hidden)
        self.output = nn.Linear(shape.width, shape.num_pdfs)
        self.masks = Masks(shape.dropout)
        for layer in self.hidden:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, windows: Tensor) -> Tensor:
        values = windows
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            values = norm(layer(values))
            if self.training and self.masks.dropout > 0:
                values = _ReluDropout.apply(values, self.masks.mask(values), self.masks.scale)
            else:
                values = torch.relu(values)
        return self.output(values)

    def expect(self, streams: Mapping[int, int], examples: int) -> None:
        """Tell what the next batch to train on consists of: examples of each stream here, and those of all processes
        together (asr_kd.train.batches.Batch)."""
        self.masks.streams = streams
        for norm in self.norms:
            norm.examples = examples  # type: ignore[assignment]

    def products_in(self, dtype: torch.dtype) -> AcousticModel:
        """Convert the weights of the matrix products, once for all; inputs must have this dtype then, logits will."""
        for layer in (*self.hidden, self.output):
            layer.to(dtype)
        return self

    def parameters_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def parameters_of(shape: Shape) -> int:
    """How many parameters a network of this shape would have; takes no memory."""
    with torch.device("meta"):
        return AcousticModel(shape).parameters_count()
