"""The loss of logits whose classes are split over processes: each holds a run of columns, none ever holds them all."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from asr_kd.losses.frame_kd import KDLoss, combined
from asr_kd.losses.targets import CompactTargets, Kind, checked, frame_shares, in_float


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


def split_kd_loss(
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
    share = frame_shares(shape[:-1], logits.device, labels, mask, lengths, weights)
    # Padding may hold NaN or infinity: what is masked must not reach a product with zero.
    z = torch.where((share > 0).unsqueeze(-1), in_float(logits.flatten(0, -2)), 0.0)
    width = z.shape[-1]

    def total(values: Tensor) -> Tensor:
        return _Total.apply(values, group)

    def log_sum_exp(values: Tensor) -> Tensor:
        """(N,) over the classes of all processes, the same in each: so is what its gradient is multiplied by."""
        highest = values.detach().amax(-1)
        dist.all_reduce(highest, dist.ReduceOp.MAX, group=group)
        return highest + total((values - highest.unsqueeze(-1)).exp().sum(-1)).log()

    def own(classes: Tensor) -> tuple[Tensor, Tensor]:
        """Which of ``classes`` are here, and their columns."""
        here = (classes >= first) & (classes < first + width)
        return here, (classes.long() - first).clamp(0, width - 1)

    scaled = z / temperature
    norm = log_sum_exp(scaled)
    if isinstance(targets, CompactTargets):
        parts = targets.parts(num_classes, z.dtype)
        here, columns = own(targets.classes)
        kept = torch.where(here, scaled.gather(-1, columns), 0.0)
        spread = parts.share * (parts.base[first : first + width] * scaled).sum(-1)
        mass = parts.kept.sum(-1) + parts.tail
        cross_entropy = mass * norm - total((parts.change * kept).sum(-1) + spread)
        if targets.tail == "bucket":
            inside = torch.zeros_like(z).scatter_add(-1, columns, (here & (parts.kept > 0)).to(z.dtype))
            rest = log_sum_exp(scaled.masked_fill(inside > 0, torch.finfo(z.dtype).min))
            cross_entropy = cross_entropy - torch.where(parts.tail > 0, parts.tail * rest, 0.0)
        entropy = targets.entropy(parts)
    else:
        q = targets.probabilities(temperature, z.dtype)
        cross_entropy = q.sum(-1) * norm - total((q[:, first : first + width] * scaled).sum(-1))
        entropy = torch.special.entr(q).sum(-1)
    hard = None
    if labels is not None:
        here, columns = own(labels.flatten())
        picked = z.gather(-1, columns.unsqueeze(-1)).squeeze(-1)
        hard = log_sum_exp(z) - total(torch.where(here, picked, 0.0))
    return combined(cross_entropy, entropy, hard, share, temperature, hard_weight)
