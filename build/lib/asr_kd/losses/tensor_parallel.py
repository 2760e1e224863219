"""Losses of logits that are split by class over processes: each has a range of the columns, none ever has them all."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from asr_kd.losses.frame_kd import KDLoss, combine_parts
from asr_kd.losses.frames import UNLABELLED, weigh_frames
from asr_kd.losses.targets import CompactTargets, Kind, masked_product, upcast, validate_targets


class _AllReduceSum(torch.autograd.Function):
    """Sum over the processes.  All of them use the same total, so each passes its gradient on unchanged."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, group: Any) -> Tensor:
        total = values.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def sharded_kd_loss(
    logits: Tensor,
    first: int,
    num_classes: int,
    soft_targets: Tensor | CompactTargets,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    hard_weight: float = 0.5,
    soft_kind: Kind = "probabilities",
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    weights: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> KDLoss:
    """Return ``frame_kd_loss`` of logits that are split by class over the processes of a group.

    Args:
        logits: (N, c) or (B, T, c), logits for this process's classes, ``first`` to ``first + c - 1``.
        first: first class of this process.
        num_classes: C, the classes of all processes.
        soft_targets: compact or dense (..., C) targets for all C classes, the same in every process.
        labels, temperature, hard_weight, soft_kind, mask, lengths, weights: see ``frame_kd_loss``.
        group: group of processes; default: all.

    Returns:
        KDLoss, the same in every process; each gets the gradient of its own logits.

    Raises:
        ValueError: as ``frame_kd_loss``.
    """
    shape = torch.Size((*logits.shape[:-1], num_classes))
    targets, labels = validate_targets(shape, soft_targets, labels, temperature, hard_weight, soft_kind)
    frames = weigh_frames(shape[:-1], logits.device, labels, mask, lengths, weights)
    # Padding may contain NaN or infinity, which must not be multiplied by zero.
    z = torch.where((frames.share > 0).unsqueeze(-1), upcast(logits.flatten(0, -2)), 0.0)
    columns = _Columns(first, z.shape[-1], group)
    scaled = z / temperature
    norm = columns.log_sum_exp(scaled)
    if isinstance(targets, CompactTargets):
        parts = targets.parts(num_classes, z.dtype)
        here, column = columns.own(targets.classes)
        kept = torch.where(here, scaled.gather(-1, column), 0.0)
        spread = masked_product(parts.share, (parts.base[columns.range] * scaled).sum(-1))
        mass = parts.kept.sum(-1) + parts.tail
        cross_entropy = mass * norm - columns.total(masked_product(parts.change, kept).sum(-1) + spread)
        if targets.tail == "bucket":
            inside = torch.zeros_like(z).scatter_add(-1, column, (here & (parts.kept > 0)).to(z.dtype))
            rest = columns.log_sum_exp(scaled.masked_fill(inside > 0, torch.finfo(z.dtype).min))
            cross_entropy = cross_entropy - masked_product(parts.tail, rest)
        entropy = targets.entropy(parts)
    else:
        q = targets.probabilities(temperature, z.dtype)
        cross_entropy = q.sum(-1) * norm - columns.total(masked_product(q[:, columns.range], scaled).sum(-1))
        entropy = torch.special.entr(q).sum(-1)
    hard = None if labels is None else columns.cross_entropy(z, labels)
    return combine_parts(cross_entropy, entropy, hard, frames, temperature, hard_weight)


def sharded_cross_entropy(logits: Tensor, first: int, labels: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return the cross-entropy of each frame with its label, of logits split as for ``sharded_kd_loss``.

    Args:
        logits: (N, c), logits for the classes of this process.
        first: first class of this process.
        labels: (N,) int64 labels among all classes; -100 for a frame that has none.
        group: group of processes; default: all.

    Returns:
        (N,) nats, the same in every process; 0 for frames without a label.
    """
    columns = _Columns(first, logits.shape[-1], group)
    return torch.where(labels == UNLABELLED, 0.0, columns.cross_entropy(upcast(logits), labels))


def sharded_argmax(logits: Tensor, first: int, group: dist.ProcessGroup | None = None) -> Tensor:
    """Return the class with the highest logit of each frame, (N,), the same in every process; the first one of equals.

    Args:
        logits: (N, c), logits for the classes of this process.
        first: first class of this process.
        group: group of processes; default: all.
    """
    own, column = logits.detach().max(-1)
    highest = own.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX, group=group)
    classes = torch.where(own == highest, first + column, torch.iinfo(torch.int64).max)
    dist.all_reduce(classes, dist.ReduceOp.MIN, group=group)
    return classes


class _Columns:
    """The range of classes that a process has, and sums over the classes of all processes."""

    def __init__(self, first: int, width: int, group: Any) -> None:
        self.first, self.width, self.group = first, width, group
        self.range = slice(first, first + width)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum over the processes."""
        return _AllReduceSum.apply(values, self.group)

    def log_sum_exp(self, values: Tensor) -> Tensor:
        """Return log Σ exp over the classes of all processes, (N,), the same in each process."""
        highest = values.detach().amax(-1)
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=self.group)
        return highest + self.total((values - highest.unsqueeze(-1)).exp().sum(-1)).log()

    def own(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of ``classes`` this process has, and their columns."""
        here = (classes >= self.first) & (classes < self.first + self.width)
        return here, (classes.long() - self.first).clamp(0, self.width - 1)

    def cross_entropy(self, values: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with one label per frame, (N,)."""
        here, column = self.own(labels)
        picked = values.gather(-1, column.unsqueeze(-1)).squeeze(-1)
        return self.log_sum_exp(values) - self.total(torch.where(here, picked, 0.0))
