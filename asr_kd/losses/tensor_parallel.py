"""The loss of logits whose classes are split over processes: each holds a run of columns, none ever holds them all."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from asr_kd.losses.frame_kd import KDLoss, combined
from asr_kd.losses.frames import UNLABELLED, weigh_frames
from asr_kd.losses.targets import CompactTargets, Kind, checked, in_float, product


class _Total(torch.autograd.Function):
    """Sum over the processes.  All go on with the same total, so each takes its gradient as it is."""

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
    """``frame_kd_loss`` of logits that are split by class over the processes of a group.

    Args:
        logits: (N, c) or (B, T, c), this process's classes ``first`` to ``first + c - 1`` of all frames.
        first: its first class.
        num_classes: C, of all processes.
        soft_targets: of all C classes, the same in every process: what is kept of few, or dense (..., C).
        labels, temperature, hard_weight, soft_kind, mask, lengths, weights: see ``frame_kd_loss``.
        group: of processes; default all.

    Returns:
        KDLoss, the same in every process; the gradient is of its own logits.

    Raises:
        ValueError: as ``frame_kd_loss``.
    """
    shape = torch.Size((*logits.shape[:-1], num_classes))
    targets = checked(shape, soft_targets, labels, temperature, hard_weight, soft_kind)
    frames = weigh_frames(shape[:-1], logits.device, labels, mask, lengths, weights)
    # Padding may hold NaN or infinity: what is masked must not reach a product with zero.
    z = torch.where((frames.share > 0).unsqueeze(-1), in_float(logits.flatten(0, -2)), 0.0)
    columns = _Columns(first, z.shape[-1], group)
    scaled = z / temperature
    norm = columns.log_sum_exp(scaled)
    if isinstance(targets, CompactTargets):
        parts = targets.parts(num_classes, z.dtype)
        here, column = columns.own(targets.classes)
        kept = torch.where(here, scaled.gather(-1, column), 0.0)
        spread = product(parts.share, (parts.base[columns.run] * scaled).sum(-1))
        mass = parts.kept.sum(-1) + parts.tail
        cross_entropy = mass * norm - columns.total(product(parts.change, kept).sum(-1) + spread)
        if targets.tail == "bucket":
            inside = torch.zeros_like(z).scatter_add(-1, column, (here & (parts.kept > 0)).to(z.dtype))
            rest = columns.log_sum_exp(scaled.masked_fill(inside > 0, torch.finfo(z.dtype).min))
            cross_entropy = cross_entropy - product(parts.tail, rest)
        entropy = targets.entropy(parts)
    else:
        q = targets.probabilities(temperature, z.dtype)
        cross_entropy = q.sum(-1) * norm - columns.total(product(q[:, columns.run], scaled).sum(-1))
        entropy = torch.special.entr(q).sum(-1)
    hard = None if labels is None else columns.cross_entropy(z, labels.flatten())
    return combined(cross_entropy, entropy, hard, frames, temperature, hard_weight)


def sharded_cross_entropy(logits: Tensor, first: int, labels: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """Each frame's cross-entropy with its label, of logits split as for ``sharded_kd_loss``.

    Args:
        logits: (N, c), this process's classes.
        first: its first class.
        labels: (N,) int64, of all classes; frames labelled -100 have none.
        group: of processes; default all.

    Returns:
        (N,) nats, the same in every process; 0 of frames without a label.
    """
    columns = _Columns(first, logits.shape[-1], group)
    return torch.where(labels == UNLABELLED, 0.0, columns.cross_entropy(in_float(logits), labels))


def sharded_argmax(logits: Tensor, first: int, group: dist.ProcessGroup | None = None) -> Tensor:
    """(N,) the class of the highest of all logits, the first of several, the same in every process.

    Args:
        logits: (N, c), this process's classes.
        first: its first class.
        group: of processes; default all.
    """
    own, column = logits.detach().max(-1)
    highest = own.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX, group=group)
    found = torch.where(own == highest, first + column, torch.iinfo(torch.int64).max)
    dist.all_reduce(found, dist.ReduceOp.MIN, group=group)
    return found


class _Columns:
    """A process's run of the classes, and what goes over all of them."""

    def __init__(self, first: int, width: int, group: Any) -> None:
        self.first, self.width, self.group = first, width, group
        self.run = slice(first, first + width)

    def total(self, values: Tensor) -> Tensor:
        """Summed over the processes."""
        return _Total.apply(values, self.group)

    def log_sum_exp(self, values: Tensor) -> Tensor:
        """(N,) over the classes of all processes, the same in each: so is what its gradient is multiplied by."""
        highest = values.detach().amax(-1)
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=self.group)
        return highest + self.total((values - highest.unsqueeze(-1)).exp().sum(-1)).log()

    def own(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Which of ``classes`` are here, and their columns."""
        here = (classes >= self.first) & (classes < self.first + self.width)
        return here, (classes.long() - self.first).clamp(0, self.width - 1)

    def cross_entropy(self, values: Tensor, labels: Tensor) -> Tensor:
        """(N,) with one label a frame."""
        here, column = self.own(labels)
        picked = values.gather(-1, column.unsqueeze(-1)).squeeze(-1)
        return self.log_sum_exp(values) - self.total(torch.where(here, picked, 0.0))
