"""The losses themselves: their definition, in operations that torch differentiates by itself, and who calls what."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr_kd.losses.lean import LeanLinearLoss, LeanLoss
from asr_kd.losses.targets import (
    IGNORED,
    CompactTargets,
    Kind,
    Targets,
    checked,
    frame_shares,
    in_float,
    product,
    weighted,
)


class KDLoss(NamedTuple):
    """What the losses return: scalars, each a (weighted) mean over the valid frames.

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
    soft_targets: Tensor | CompactTargets,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    hard_weight: float = 0.5,
    soft_kind: Kind = "probabilities",
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    weights: Tensor | None = None,
    lean: bool | None = None,
) -> KDLoss:
    """Soft targets at temperature T, times T², plus hard targets (paper, section 2).

    The gradient of the soft part with respect to a logit is ``T² · (p_i − q_i) / T`` (equation 2 times T²), so
    its size relative to the hard part does not depend on T.

    Args:
        logits: (N, C) or (B, T, C) (any number of leading dimensions) student logits of any floating dtype;
            computed in float32, or in float64 if they are.  A class with a logit of −inf does not exist for the
            student: it costs nothing where it has no soft target.
        soft_targets: teacher probabilities *at the same temperature*, of the logits' shape, rows summing to
            one; or ``CompactTargets``; or, with ``soft_kind="logits"``, one teacher's logits (for several
            teachers see ``average_distributions``).  No gradient flows to them.
        labels: (N,) or (B, T) int64 hard labels; frames labelled -100 count in neither part.  None: soft part only.
        temperature: T > 0; default 1.
        hard_weight: weight of the hard part, 0 to 1; the soft part gets the rest.  Ignored without labels.
        soft_kind: what dense ``soft_targets`` are; default probabilities.
        mask: (N,) or (B, T) bool, true for frames that count; default all.
        lengths: (B,) valid frames of each sequence, the rest being padding; for (B, T, C) logits.
        weights: (N,) or (B, T) weights of the frames, not negative; default 1.  The loss is a weighted mean.
        lean: True: forward and gradient in one sweep over chunks of frames, which keeps one buffer of the logits'
            size; can be differentiated once.  False: composed of differentiable operations, for higher
            derivatives, torch.func and small tensors.  Default: True, but under torch.compile (which fuses the
            plain form itself) False.

    Returns:
        KDLoss, means over the valid frames (zero, with zero gradient, when there are none).

    Raises:
        ValueError: shapes that do not fit, T <= 0, a weight outside [0, 1].
    """
    targets = checked(logits.shape, soft_targets, labels, temperature, hard_weight, soft_kind)
    share = frame_shares(logits.shape[:-1], logits.device, labels, mask, lengths, weights)
    flat = logits.flatten(0, -2)
    flat_labels = None if labels is None else labels.flatten()
    if not torch.compiler.is_compiling() if lean is None else lean:
        wanted = logits.requires_grad and torch.is_grad_enabled()
        return KDLoss(*LeanLoss.apply(flat, targets, flat_labels, share, temperature, hard_weight, wanted))
    return _plain_loss(flat, targets, flat_labels, share, temperature, hard_weight)


def linear_kd_loss(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    soft_targets: Tensor | CompactTargets,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    hard_weight: float = 0.5,
    soft_kind: Kind = "probabilities",
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    weights: Tensor | None = None,
    chunk_frames: int | None = None,
) -> KDLoss:
    """The output layer and ``frame_kd_loss`` in one, holding the logits of a chunk of frames only.

    The gradients of inputs, weight and bias are computed on the way forward, so that nothing is computed twice.
    Under autocast the products are in its dtype and the loss in float32.

    Args:
        inputs: (N, H) or (B, T, H), what the output layer sees.
        weight: (C, H) of the output layer.
        bias: (C,), or None.
        chunk_frames: frames a chunk; default a thirty-second of all, 128 to 1024.
        soft_targets, labels and the rest: see ``frame_kd_loss``.

    Returns:
        KDLoss, as ``frame_kd_loss(F.linear(inputs, weight, bias), …)``.

    Raises:
        ValueError: as ``frame_kd_loss``.
    """
    shape = torch.Size((*inputs.shape[:-1], len(weight)))
    targets = checked(shape, soft_targets, labels, temperature, hard_weight, soft_kind)
    share = frame_shares(shape[:-1], inputs.device, labels, mask, lengths, weights)
    flat = inputs.flatten(0, -2)
    rows = chunk_frames or min(1024, max(128, -(-len(flat) // 32)))
    given = (inputs, weight, bias)
    wanted = tuple(t is not None and t.requires_grad and torch.is_grad_enabled() for t in given)
    labels = None if labels is None else labels.flatten()
    return KDLoss(
        *LeanLinearLoss.apply(flat, weight, bias, targets, labels, share, temperature, hard_weight, wanted, rows)
    )


class FrameKDLoss(nn.Module):
    """``frame_kd_loss`` as a module that keeps temperature and hard weight.

    Args:
        temperature, hard_weight: see ``frame_kd_loss``.
    """

    def __init__(self, temperature: float = 1.0, hard_weight: float = 0.5) -> None:
        super().__init__()
        self.temperature, self.hard_weight = temperature, hard_weight

    def forward(
        self, logits: Tensor, soft_targets: Tensor | CompactTargets, labels: Tensor | None = None, **more: Any
    ) -> KDLoss:
        """As ``frame_kd_loss``; ``more`` are its other keywords."""
        return frame_kd_loss(
            logits, soft_targets, labels, temperature=self.temperature, hard_weight=self.hard_weight, **more
        )

    def extra_repr(self) -> str:
        return f"temperature={self.temperature:g}, hard_weight={self.hard_weight:g}"


def logit_matching_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    *,
    mask: Tensor | None = None,
    lengths: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Half the mean squared difference of zero-meaned logits: what distillation tends to as T grows (section 2.1).

    Its gradient with respect to a logit is ``(z_i − v_i) / C``, equation 4 times T².

    Args:
        logits, teacher_logits: (N, C) or (B, T, C); each frame's mean is taken off both.
        mask, lengths, weights: which frames count, as in ``frame_kd_loss``.

    Returns:
        A scalar, the mean over the valid frames.
    """
    if logits.shape != teacher_logits.shape:
        raise ValueError(f"teacher logits {tuple(teacher_logits.shape)} do not fit logits {tuple(logits.shape)}")
    share = frame_shares(logits.shape[:-1], logits.device, None, mask, lengths, weights)
    difference = (in_float(logits) - in_float(teacher_logits.detach())).flatten(0, -2)
    difference = difference - difference.mean(-1, keepdim=True)
    return _mean(0.5 * difference.square().mean(-1), share)


def _mean(values: Tensor, share: Tensor) -> Tensor:
    """Weighted mean of (N,) values; those of frames that do not count may be anything, NaN too."""
    return (torch.where(share > 0, values, 0.0) * share.to(values.dtype)).sum()


def _plain_loss(
    logits: Tensor, targets: Targets, labels: Tensor | None, share: Tensor, temperature: float, hard_weight: float
) -> KDLoss:
    """The definition, in operations that torch differentiates by itself."""
    # Padding may hold NaN or infinity: what is masked must not reach a product with zero.
    z = torch.where((share > 0).unsqueeze(-1), in_float(logits), 0.0)
    log_p = F.log_softmax(z / temperature, -1)
    if isinstance(targets, CompactTargets) and targets.tail == "bucket":
        parts = targets.parts(logits.shape[-1], z.dtype)
        kept, tail, *_ = parts
        inside = torch.zeros_like(log_p).scatter_add(-1, targets.classes.long(), (kept > 0).to(log_p.dtype))
        log_rest = torch.logsumexp(log_p.masked_fill(inside > 0, torch.finfo(log_p.dtype).min), -1)
        log_kept = log_p.gather(-1, targets.classes.long())
        cross_entropy = -product(kept, log_kept).sum(-1) - product(tail, log_rest)
        entropy = targets.entropy(parts)
    else:
        if isinstance(targets, CompactTargets):
            q = targets.dense(logits.shape[-1]).to(z.dtype)
        else:
            q = targets.probabilities(temperature, z.dtype)
        cross_entropy = -product(q, log_p).sum(-1)
        entropy = torch.special.entr(q).sum(-1)
    hard = None if labels is None else F.cross_entropy(z, labels, ignore_index=IGNORED, reduction="none")
    return combined(cross_entropy, entropy, hard, share, temperature, hard_weight)


def combined(
    cross_entropy: Tensor, entropy: Tensor, hard: Tensor | None, share: Tensor, temperature: float, hard_weight: float
) -> KDLoss:
    """The loss from what each frame (N,) adds to it: cross-entropy with the soft targets, their entropy, and
    cross-entropy with the labels (None: there are none)."""
    soft = temperature**2 * _mean(cross_entropy, share)
    kl = _mean((cross_entropy - entropy).detach(), share)
    if hard is None:
        return KDLoss(soft, soft.detach(), torch.zeros_like(kl), kl)
    hard = _mean(hard, share)
    return KDLoss(weighted(soft, hard, hard_weight), soft.detach(), hard.detach(), kl)
