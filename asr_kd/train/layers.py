"""Layers for training, put into a network in place of torch's own before it starts.

``convert_layers`` makes the result of a ``DNN`` independent of how frames are shared between processes: dropout draws
its masks stream by stream, whichever process reads a stream; batch normalisation is over the batch of all processes.
``pool_dropout`` makes the dropout of any other network faster on a CPU.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr_kd.common import distributed


class MaskPool:
    """Dropout masks as slices of one pool of random bits.

    Drawing fresh bits for every layer and batch took 30 % of an epoch on the CPU.  The pool is redrawn at every
    ``reseed`` (each epoch), and each mask starts at a random place in it.
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
        """Return a mask of 0 and 1/(1 − dropout) with the shape and dtype of ``like``."""
        size = like.numel()
        if self.pool is None or self.pool.dtype != like.dtype or self.pool.numel() < 2 * size:
            bits = self.generator.random(max(self.SIZE, 2 * size), dtype=np.float32) >= self.dropout
            self.pool = torch.from_numpy(bits).to(device=like.device, dtype=like.dtype).mul_(self.scale)
        start = int(self.generator.integers(self.pool.numel() - size))
        return self.pool[start : start + size].view(like.shape)


class StreamMasks:
    """Dropout masks of batches that come from several streams, each with a pool of its own.

    Attributes:
        streams: {stream: examples} of the next batch, in their order; empty: all examples are of one stream.
    """

    def __init__(self, dropout: float) -> None:
        self.dropout, self.scale = dropout, 1.0 / (1.0 - dropout)
        self.streams: Mapping[int, int] = {}
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        self.seed = seed
        self.pools: dict[int, MaskPool] = {}

    def mask(self, like: Tensor) -> Tensor:
        """Return a mask as ``MaskPool.mask`` does."""
        streams = self.streams or {0: len(like)}
        rows = like.split(list(streams.values()))
        masks = [self._pool(stream).mask(part) for stream, part in zip(streams, rows, strict=True)]
        return masks[0] if len(masks) == 1 else torch.cat(masks)

    def _pool(self, stream: int) -> MaskPool:
        if stream not in self.pools:
            self.pools[stream] = MaskPool(self.dropout, stream)
            self.pools[stream].reseed(self.seed)
        return self.pools[stream]


class DropoutMasks:
    """Dropout masks of any network: a pool for each rate and each dtype."""

    def __init__(self) -> None:
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        self.seed = seed
        self.pools: dict[tuple[float, torch.dtype], MaskPool] = {}

    def mask(self, like: Tensor, dropout: float) -> Tensor:
        """Return a mask as ``MaskPool.mask`` does."""
        pool = self.pools.get((dropout, like.dtype))
        if pool is None:
            pool = self.pools[dropout, like.dtype] = MaskPool(dropout)
            pool.reseed(self.seed)
        return pool.mask(like)


class PooledDropout(nn.Dropout):
    """``nn.Dropout`` with masks from pools; torch draws a number for each unit, which takes a quarter of an update of a
    TDNN-F on the CPU."""

    def __init__(self, dropout: float, masks: DropoutMasks) -> None:
        super().__init__(dropout)
        self.masks = masks

    def forward(self, values: Tensor) -> Tensor:
        return values * self.masks.mask(values, self.p) if self.training else values


class ReluDropout(nn.Module):
    """ReLU and dropout in one; in training it overwrites its input.

    Args:
        masks: shared by all layers of a network.
    """

    def __init__(self, masks: StreamMasks) -> None:
        super().__init__()
        self.masks = masks

    def forward(self, values: Tensor) -> Tensor:
        if self.training and self.masks.dropout > 0:
            return _ReluDropoutFunction.apply(values, self.masks.mask(values), self.masks.scale)
        return torch.relu(values)


class _ReluDropoutFunction(torch.autograd.Function):
    """Keeps only the output for the backward pass, which the next layer keeps anyway."""

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


class BatchNorm(nn.BatchNorm1d):
    """Normalises over the batch of all processes; batches too small for statistics use the running ones.

    Attributes:
        batch_size: examples in the batch of all processes; 0: those of this process are all.
    """

    MIN_EXAMPLES = 32
    batch_size = 0

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or (self.batch_size or len(values)) < self.MIN_EXAMPLES:
            return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(values) if distributed.rank().size == 1 else self._over_processes(values)

    def _over_processes(self, values: Tensor) -> Tensor:
        # Each process fills one row with its count, its mean and the squares around it; the sum gathers the rows.
        rank, wide = distributed.rank(), values.float()
        own_mean = wide.mean(0)
        row = torch.stack([torch.full_like(own_mean, len(wide)), own_mean, (wide - own_mean).square().sum(0)])
        rows = F.pad(row[None], (0, 0, 0, 0, rank.number, rank.size - 1 - rank.number))
        count, means, squares = distributed.all_reduce_sum(rows).unbind(1)
        total = count.sum(0)
        mean = (count * means).sum(0) / total
        variance = (squares + count * (means - mean).square()).sum(0) / total
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * total / (total - 1), self.momentum)
        return ((wide - mean) * (self.weight * (variance + self.eps).rsqrt()) + self.bias).to(values.dtype)


def convert_layers(network: nn.Module, masks: StreamMasks) -> nn.Module:
    """Return a network with the layers of this module, as torch's ``SyncBatchNorm.convert_sync_batchnorm`` does.

    ``nn.Sequential(nn.ReLU(), nn.Dropout(p))`` becomes ``ReluDropout``, ``nn.BatchNorm1d`` becomes ``BatchNorm``.  The
    parameters and buffers stay the same, and so do their names.

    Args:
        network: changed in place.
        masks: for all dropout of the network, in place of the modules' own p.
    """
    if isinstance(network, nn.BatchNorm1d):
        norm = BatchNorm(network.num_features, network.eps, network.momentum)
        norm.load_state_dict(network.state_dict(keep_vars=True), assign=True)
        return norm.train(network.training)
    if isinstance(network, ReluDropout) or [type(part) for part in network.children()] == [nn.ReLU, nn.Dropout]:
        return ReluDropout(masks).train(network.training)
    for name, child in network.named_children():
        network.add_module(name, convert_layers(child, masks))
    return network


def pool_dropout(network: nn.Module, masks: DropoutMasks) -> None:
    """Let every ``nn.Dropout`` of a network draw from ``masks``, in place; classes derived from it stay as they are."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            own = type(child) not in (nn.Dropout, PooledDropout)
            if isinstance(child, nn.Dropout) and not own and 0 < child.p < 1:
                setattr(module, name, PooledDropout(child.p, masks).train(child.training))
