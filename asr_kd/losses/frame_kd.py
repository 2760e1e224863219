"""The frame-level losses: entry points, and their definition in operations that torch differentiates by itself."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr_kd.losses.frames import NEGATIVE, UNLABELLED, Frames, add_parts, frame_weights, mean, require, weigh_frames
from asr_kd.losses.kernels import find_gpu_sweep
from asr_kd.losses.lean import LeanGPULoss, LeanLinearLoss, LeanLoss
from asr_kd.losses.targets import CompactTargets, Kind, Targets, masked_product, upcast, validate_targets


class KDLoss(NamedTuple):
    """The loss of a batch, as scalars.

    Each frame costs ``(1 - hard_weight) · soft + hard_weight · hard`` if it has a label, and ``soft`` if it has none.

    Attributes:
        total: mean of that cost; the only attribute that has a gradient.
        soft: T² times the cross-entropy between the soft targets and the student at temperature T, mean over all
            frames that count.
        hard: cross-entropy with the labels at T = 1, mean over the frames that count and have a label; zero if none
            has one.
        kl: KL(soft targets ‖ student) at temperature T in nats, a mean as ``soft``; zero exactly when they are equal.
        weight: sum of the weights of all frames that count (without ``weights``, their number).  ``total``, ``soft``
            and ``kl`` are means over this weight, so micro-batches of any size add up to the batch:
            Σ weight · total / Σ weight is the total of the batch, and so are its gradients.
        labelled_weight: sum of the weights of those that have a label, over which ``hard`` is the mean.
    """

    total: Tensor
    soft: Tensor
    hard: Tensor
    kl: Tensor
    weight: Tensor
    labelled_weight: Tensor


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
    """Return the loss with soft targets at temperature T, times T², and with hard targets (paper, section 2).

    The gradient of the soft part with respect to a logit is ``T² · (p_i − q_i) / T`` (equation 2 times T²), so its size
    relative to the hard part does not depend on T.

    Args:
        logits: student logits (N, C) or (B, T, C), with any number of leading dimensions and any floating dtype; the
            loss is computed in float32, or in float64 for float64 logits.  A class with a logit of −inf does not exist
            for the student: it costs nothing where its soft target is zero.
        soft_targets: teacher probabilities *at the same temperature*, of the shape of the logits, with rows that sum
            to one (within the rounding of their dtype); or ``CompactTargets``; or, with ``soft_kind="logits"``, the
            logits of one teacher (for several teachers see ``average_distributions``).  They get no gradient.
        labels: (N,) or (B, T) hard labels of any whole type; -100 for a frame that has none, which then costs its soft
            part alone, with full weight.  None: no frame has one.
        temperature: T > 0.
        hard_weight: weight of the hard part of frames with a label, 0 to 1; their soft part gets the rest.
        soft_kind: whether dense ``soft_targets`` are probabilities or logits.
        mask: (N,) or (B, T) bool, true for frames that count; the others count in neither part.  Default: all do.
        lengths: (B,) frames of each sequence, for (B, T, C) logits; the rest is padding, counts in neither part, and
            may hold anything, NaN and rows of −inf too.
        weights: (N,) or (B, T) weights of the frames, not negative; default 1.  The loss is a weighted mean.
        lean: True: value and gradient in one sweep over chunks of frames, which keeps one buffer of the size of the
            logits and can be differentiated once.  False: composed of differentiable operations, for higher
            derivatives, torch.func and small tensors.  Default: True, but False under torch.compile, which fuses the
            plain form itself.

    Returns:
        KDLoss, means over the frames that count (zero, with zero gradient, when none does).

    Raises:
        ValueError: shapes that do not fit, T <= 0, a hard weight outside [0, 1], labels that are neither classes nor
            -100, weights that are negative or not finite, or soft targets whose cross-entropy is negative.
    """
    lean = not torch.compiler.is_compiling() if lean is None else lean
    sweep = find_gpu_sweep(logits, soft_targets) if lean else None
    targets, labels = validate_targets(
        logits.shape, soft_targets, labels, temperature, hard_weight, soft_kind, check_labels=sweep is None
    )
    flat = logits.flatten(0, -2)
    if sweep is not None:
        weight = frame_weights(logits.shape[:-1], logits.device, mask, lengths, weights)
        swept = sweep(targets, labels, weight, temperature, hard_weight, logits.shape[-1])
        return KDLoss(*LeanGPULoss.apply(flat, swept))
    frames = weigh_frames(logits.shape[:-1], logits.device, labels, mask, lengths, weights)
    if lean:
        needs_gradient = logits.requires_grad and torch.is_grad_enabled()
        values = LeanLoss.apply(flat, targets, labels, frames, temperature, hard_weight, needs_gradient)
        return with_weights(values, frames)
    return _plain_loss(flat, targets, labels, frames, temperature, hard_weight)


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
    """Return ``frame_kd_loss`` of an output layer, whose logits exist for one chunk of frames at a time.

    The gradients of inputs, weight and bias are computed in the forward pass, so that nothing is computed twice.  Under
    autocast the products are in its dtype and the loss is in float32.

    Args:
        inputs: (N, H) or (B, T, H) inputs of the output layer.
        weight: (C, H) weight of the output layer.
        bias: (C,) bias of the output layer, or None.
        chunk_frames: frames per chunk; default: a thirty-second of all, within 128 and 1024; on a GPU, which takes its
            time to start anything, an eighth, within 1024 and 8192.

    The other arguments are those of ``frame_kd_loss``.

    Returns:
        KDLoss, as ``frame_kd_loss(F.linear(inputs, weight, bias), …)``.

    Raises:
        ValueError: as ``frame_kd_loss``.
    """
    shape = torch.Size((*inputs.shape[:-1], len(weight)))
    targets, labels = validate_targets(shape, soft_targets, labels, temperature, hard_weight, soft_kind)
    frames = weigh_frames(shape[:-1], inputs.device, labels, mask, lengths, weights)
    flat = inputs.flatten(0, -2)
    share, least, most = (8, 1024, 8192) if flat.is_cuda else (32, 128, 1024)
    rows = chunk_frames or min(most, max(least, -(-len(flat) // share)))
    needs_gradient = tuple(
        t is not None and t.requires_grad and torch.is_grad_enabled() for t in (inputs, weight, bias)
    )
    values = LeanLinearLoss.apply(
        flat, weight, bias, targets, labels, frames, temperature, hard_weight, needs_gradient, rows
    )
    return with_weights(values, frames)


class FrameKDLoss(nn.Module):
    """``frame_kd_loss`` as a module that stores temperature and hard weight.

    Args:
        temperature, hard_weight: see ``frame_kd_loss``.
    """

    def __init__(self, temperature: float = 1.0, hard_weight: float = 0.5) -> None:
        super().__init__()
        self.temperature, self.hard_weight = temperature, hard_weight

    def forward(
        self, logits: Tensor, soft_targets: Tensor | CompactTargets, labels: Tensor | None = None, **more: Any
    ) -> KDLoss:
        """Return ``frame_kd_loss``; ``more`` are its other keywords."""
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
    """Return half the mean squared difference of zero-mean logits, the limit of distillation for large T (section 2.1).

    Its gradient with respect to a logit is ``(z_i − v_i) / C``, equation 4 times T².

    Args:
        logits, teacher_logits: (N, C) or (B, T, C); the mean of each frame is subtracted from both.
        mask, lengths, weights: which frames count, as in ``frame_kd_loss``.

    Returns:
        A scalar, the mean over the frames that count.
    """
    if logits.shape != teacher_logits.shape:
        raise ValueError(f"teacher logits {tuple(teacher_logits.shape)} do not fit logits {tuple(logits.shape)}")
    frames = weigh_frames(logits.shape[:-1], logits.device, None, mask, lengths, weights)
    difference = (upcast(logits) - upcast(teacher_logits.detach())).flatten(0, -2)
    difference = difference - difference.mean(-1, keepdim=True)
    return mean(0.5 * difference.square().mean(-1), frames.share)


def _plain_loss(
    logits: Tensor, targets: Targets, labels: Tensor | None, frames: Frames, temperature: float, hard_weight: float
) -> KDLoss:
    """Return the loss by its definition, in operations that torch differentiates by itself."""
    # Padding may contain NaN or infinity, which must not be multiplied by zero.
    z = torch.where((frames.share > 0).unsqueeze(-1), upcast(logits), 0.0)
    log_p = F.log_softmax(z / temperature, -1)
    if isinstance(targets, CompactTargets) and targets.tail == "bucket":
        parts = targets.parts(logits.shape[-1], z.dtype)
        kept, tail, *_ = parts
        inside = torch.zeros_like(log_p).scatter_add(-1, targets.classes.long(), (kept > 0).to(log_p.dtype))
        log_rest = torch.logsumexp(log_p.masked_fill(inside > 0, torch.finfo(log_p.dtype).min), -1)
        log_kept = log_p.gather(-1, targets.classes.long())
        cross_entropy = -masked_product(kept, log_kept).sum(-1) - masked_product(tail, log_rest)
        entropy = targets.entropy(parts)
    else:
        if isinstance(targets, CompactTargets):
            q = targets.dense(logits.shape[-1]).to(z.dtype)
        else:
            q = targets.probabilities(temperature, z.dtype)
        cross_entropy = -masked_product(q, log_p).sum(-1)
        entropy = torch.special.entr(q).sum(-1)
    hard = None if labels is None else F.cross_entropy(z, labels, ignore_index=UNLABELLED, reduction="none")
    return combine_parts(cross_entropy, entropy, hard, frames, temperature, hard_weight)


def combine_parts(
    cross_entropy: Tensor, entropy: Tensor, hard: Tensor | None, frames: Frames, temperature: float, hard_weight: float
) -> KDLoss:
    """Return the loss, given each frame's (N,) cross-entropy with its soft target, the entropy of that target, and the
    cross-entropy with its label (None: there are no labels)."""
    soft = temperature**2 * mean(cross_entropy, frames.share)
    kl = mean((cross_entropy - entropy).detach(), frames.share)
    if hard is None or frames.labelled is None:
        return with_weights((soft, soft.detach(), torch.zeros_like(kl), kl), frames)
    hard_sum = mean(hard, torch.where(frames.labelled, frames.share, 0.0))
    unlabelled_soft = temperature**2 * mean(cross_entropy, torch.where(frames.labelled, 0.0, frames.share))
    total = add_parts(soft, hard_sum + unlabelled_soft, hard_weight)
    return with_weights((total, soft.detach(), frames.mean_of_labelled(hard_sum.detach()), kl), frames)


def with_weights(values: tuple[Tensor, ...], frames: Frames) -> KDLoss:
    """Return total, soft, hard and KL with the weights of the frames that they are means over.

    Raises:
        ValueError: the soft part is negative, as it is for log-probabilities given as soft targets.
    """
    # A scalar that exists already: negative values among the soft targets are seen without a sweep of their own.
    require(~(values[1] < -1e-3), NEGATIVE)
    return KDLoss(*values, *(weight.to(values[0].dtype) for weight in (frames.weight, frames.labelled_weight)))
