"""The frame-level distillation loss of "Distilling the Knowledge in a Neural Network" (Hinton et al. 2015).

Depends on torch alone, so it can be copied or imported into any training loop:

>>> import torch
>>> from asr_kd.losses import average_distributions, frame_kd_loss
>>> logits = torch.randn(4, 7, requires_grad=True)
>>> soft = average_distributions([torch.randn(4, 7), torch.randn(4, 7)], temperature=2.0)
>>> loss = frame_kd_loss(logits, soft, labels=torch.tensor([0, 1, 2, 3]), temperature=2.0)
>>> loss.total.backward()
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Mean = Literal["arithmetic", "geometric"]


class KDLoss(NamedTuple):
    """What ``frame_kd_loss`` returns; scalars, each a mean over the valid frames.

    Attributes:
        total: ``(1 - hard_weight) * soft + hard_weight * hard``; the only one to call backward on.
        soft: T² times the cross-entropy between the soft targets and the student at temperature T.
        hard: cross-entropy with the labels at T = 1 (zero without labels).
        kl: KL(soft targets ‖ student) at temperature T, in nats; zero exactly when they are equal.
    """

    total: Tensor
    soft: Tensor
    hard: Tensor
    kl: Tensor


def frame_kd_loss(
    logits: Tensor,
    soft_targets: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    hard_weight: float = 0.5,
    mask: Tensor | None = None,
) -> KDLoss:
    """Soft targets at temperature T, times T², plus hard targets (paper, section 2).

    The gradient of the soft part with respect to a logit is ``T² · (p_i − q_i) / T`` (equation 2 times T²),
    so its size relative to the hard part does not depend on T.

    Args:
        logits: (..., C) student logits, any floating dtype; computed in float32 or better.
        soft_targets: (..., C) teacher probabilities *at the same temperature*; rows sum to one.
        labels: (...) int64 hard labels; frames labelled -100 count in neither part.  None: soft part only.
        temperature: T > 0; 1 by default.
        hard_weight: weight of the hard part, 0 to 1; the soft part gets the rest.  Ignored without labels.
        mask: (...) bool, true for frames that count; all by default.

    Returns:
        KDLoss, means over the valid frames (zero, with zero gradient, when there are none).

    Raises:
        ValueError: shapes that do not fit, T <= 0 or a weight outside [0, 1].
    """
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    if not 0 <= hard_weight <= 1:
        raise ValueError(f"hard_weight must lie in [0, 1], not {hard_weight}")
    if soft_targets.shape != logits.shape:
        raise ValueError(f"soft targets {tuple(soft_targets.shape)} do not fit logits {tuple(logits.shape)}")
    for name, value in (("labels", labels), ("mask", mask)):
        if value is not None and value.shape != logits.shape[:-1]:
            raise ValueError(f"{name} {tuple(value.shape)} do not fit logits {tuple(logits.shape)}")
    working = logits if logits.dtype == torch.float64 else logits.float()
    q = soft_targets.to(working.dtype)

    valid = torch.ones(logits.shape[:-1], dtype=torch.bool, device=logits.device) if mask is None else mask.bool()
    if labels is not None:
        valid = valid & (labels != -100)
    count = valid.sum().clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return torch.where(valid, values, 0.0).sum() / count

    cross_entropy = mean(-(q * F.log_softmax(working / temperature, dim=-1)).sum(-1))
    entropy = mean(torch.special.entr(q).sum(-1))
    soft = temperature**2 * cross_entropy
    kl = (cross_entropy - entropy).detach()
    if labels is None:
        return KDLoss(soft, soft.detach(), torch.zeros_like(kl), kl)
    frames = F.cross_entropy(working.flatten(0, -2), labels.flatten(), ignore_index=-100, reduction="none")
    hard = mean(frames.view(labels.shape))
    total = (1 - hard_weight) * soft + hard_weight * hard
    return KDLoss(total, soft.detach(), hard.detach(), kl)


def average_distributions(
    teacher_logits: Sequence[Tensor], temperature: float = 1.0, mean: Mean = "arithmetic"
) -> Tensor:
    """Soft targets of an ensemble: the mean of its members' *distributions* at temperature T (paper, section 2).

    Args:
        teacher_logits: one (..., C) tensor per teacher.
        temperature: T > 0.
        mean: "arithmetic" averages probabilities; "geometric" averages log probabilities, renormalised.

    Returns:
        (..., C) probabilities in float32 (float64 for float64 logits).
    """
    if not teacher_logits:
        raise ValueError("an ensemble needs at least one teacher")
    if temperature <= 0:
        raise ValueError(f"temperature must be positive, not {temperature}")
    total: Tensor | None = None
    for logits in teacher_logits:
        working = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
        value = F.softmax(working, -1) if mean == "arithmetic" else F.log_softmax(working, -1)
        total = value if total is None else total + value
    assert total is not None
    average = total / len(teacher_logits)
    return average if mean == "arithmetic" else F.softmax(average, -1)
