"""Soft targets: an ensemble's average, dense and compact forms."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from asr_kd.losses.frames import UNLABELLED, require, wrong_labels

Mean = Literal["arithmetic", "geometric"]
Tail = Literal["even", "prior", "bucket", "none"]
Kind = Literal["probabilities", "logits"]


@dataclasses.dataclass(frozen=True)
class CompactTargets:
    """Soft targets that keep only some classes of each frame, usually the k most probable.

    Attributes:
        classes: (..., k) integer class indices, each class at most once per frame.
        probabilities: (..., k) their probabilities, at the temperature of the loss.  A frame that keeps fewer than k
            has zeros, next to any valid class index.
        tail: what happens to the rest of the mass, 1 − Σ probabilities.
            "even": it is spread evenly over the classes not kept;
            "prior": it is spread over them in proportion to ``prior``;
            "bucket": it belongs to one outcome "another class", so that the KL is over k + 1 outcomes;
            "none": it is dropped (for probabilities that were renormalised or importance-sampled).
        prior: (C,) probabilities of the classes, only for "prior".
    """

    classes: Tensor
    probabilities: Tensor
    tail: Tail = "even"
    prior: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.prior is None) == (self.tail == "prior"):
            raise ValueError('tail="prior" needs a prior, and the other forms of the tail must have none')

    @staticmethod
    def top(probabilities: Tensor, k: int, tail: Tail = "even", prior: Tensor | None = None) -> CompactTargets:
        """Return the k largest of dense (..., C) probabilities."""
        kept, classes = probabilities.topk(k, dim=-1)
        return CompactTargets(classes, kept, tail, prior)

    def dense(self, num_classes: int) -> Tensor:
        """Return (..., C) probabilities.

        Raises:
            ValueError: the tail is a "bucket", which does not tell the classes in it apart.
        """
        if self.tail == "bucket":
            raise ValueError('soft targets with tail="bucket" have no dense form')
        parts = self.parts(num_classes, torch.promote_types(self.probabilities.dtype, torch.float32))
        dense = parts.share.unsqueeze(-1) * parts.base
        return dense.scatter_add(-1, self.classes.long(), parts.change)

    def to(self, device: torch.device | str) -> CompactTargets:
        """Return the same targets on another device."""
        prior = None if self.prior is None else self.prior.to(device)
        return CompactTargets(self.classes.to(device), self.probabilities.to(device), self.tail, prior)

    def parts(self, num_classes: int, dtype: torch.dtype) -> Parts:
        """Return the terms that the losses compute with."""
        kept = self.probabilities.to(dtype)
        base = torch.ones(num_classes, dtype=dtype, device=kept.device) if self.prior is None else self.prior.to(dtype)
        if self.tail == "none":
            nothing = torch.zeros_like(kept[..., 0])
            return Parts(kept, nothing, nothing, base, kept)
        base_kept = torch.where(kept > 0, base[self.classes.long()], 0.0)
        others = base.sum() - base_kept.sum(-1)
        partial = (kept > 0).sum(-1) < num_classes
        # If all classes are kept, one minus their sum is only rounding.
        tail = torch.where(partial, (1 - kept.sum(-1)).clamp(min=0), 0.0)
        share = torch.where(partial, tail / others.clamp(min=torch.finfo(dtype).tiny), 0.0)
        if self.tail == "bucket":  # spread over no class
            share = torch.zeros_like(share)
        return Parts(kept, tail, share, base, kept - share.unsqueeze(-1) * base_kept)

    def entropy(self, parts: Parts) -> Tensor:
        """Return the entropy in nats (...) of each frame's distribution, given its ``parts``."""
        entropy = torch.special.entr(parts.kept).sum(-1)
        if self.tail == "none":
            return entropy
        if self.tail == "bucket":
            return entropy + torch.special.entr(parts.tail)
        entropy = entropy - torch.xlogy(parts.tail, parts.share)
        if self.prior is not None:
            spread = torch.xlogy(parts.base, parts.base)
            kept = torch.where(parts.kept > 0, spread[self.classes.long()], 0.0).sum(-1)
            entropy = entropy - parts.share * (spread.sum() - kept)
        return entropy

    def flat(self) -> CompactTargets:
        """Return the same targets with a single dimension of frames."""
        return CompactTargets(self.classes.flatten(0, -2), self.probabilities.flatten(0, -2), self.tail, self.prior)


class Parts(NamedTuple):
    """Compact targets as q = ``share · base`` for every class, plus ``change`` for the kept ones.

    Attributes:
        kept: (..., k) probabilities.
        tail: (...) mass of all other classes; the mass of a bucket is only here.
        share: (...) factor of ``base``.
        base: (C,) ones, or the prior.
        change: (..., k); zero where a frame keeps fewer than k.
    """

    kept: Tensor
    tail: Tensor
    share: Tensor
    base: Tensor
    change: Tensor


@dataclasses.dataclass(frozen=True)
class Dense:
    """Dense soft targets (N, C): probabilities, or the logits of a teacher."""

    values: Tensor
    kind: Kind

    def probabilities(self, temperature: float, dtype: torch.dtype) -> Tensor:
        values = self.values.to(dtype)
        return F.softmax(values / temperature, -1) if self.kind == "logits" else values


Targets = Dense | CompactTargets


def average_distributions(
    teacher_logits: Sequence[Tensor], temperature: float = 1.0, mean: Mean = "arithmetic"
) -> Tensor:
    """Return the soft targets of an ensemble: the mean of its *distributions* at temperature T (paper, section 2).

    Args:
        teacher_logits: one tensor (..., C) per teacher.
        temperature: T > 0.
        mean: "arithmetic" averages probabilities, "geometric" log probabilities, which are then renormalised.

    Returns:
        (..., C) probabilities in float32 (float64 for float64 logits).
    """
    if not teacher_logits:
        raise ValueError("an ensemble needs at least one teacher")
    _check_temperature(temperature)
    total: Tensor | None = None
    for logits in teacher_logits:
        z = upcast(logits) / temperature
        value = F.softmax(z, -1) if mean == "arithmetic" else F.log_softmax(z, -1)
        total = value if total is None else total + value
    assert total is not None
    average = total / len(teacher_logits)
    return average if mean == "arithmetic" else F.softmax(average, -1)


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, not {temperature}")


def validate_targets(
    shape: torch.Size, soft: Tensor | CompactTargets, labels: Tensor | None, temperature: float, hard_weight: float,
    kind: Kind, check_labels: bool = True,
) -> tuple[Targets, Tensor | None]:  # fmt: skip
    """Check all arguments of a loss, and return its soft targets and its labels with a single dimension of frames.

    Args:
        check_labels: also check the values of the labels; False: whoever reads them does.
    """
    _check_temperature(temperature)
    if not 0 <= hard_weight <= 1:
        raise ValueError(f"hard_weight must lie in [0, 1], not {hard_weight}")
    labels = None if labels is None else _flat_labels(shape, labels, check_labels)
    if isinstance(soft, CompactTargets):
        if soft.classes.shape != soft.probabilities.shape or soft.classes.shape[:-1] != shape[:-1]:
            raise ValueError(
                f"compact targets {tuple(soft.classes.shape)}, {tuple(soft.probabilities.shape)} "
                f"do not fit logits {tuple(shape)}"
            )
        return soft.flat(), labels
    if soft.shape != shape:
        raise ValueError(f"soft targets {tuple(soft.shape)} do not fit logits {tuple(shape)}")
    return Dense(soft.detach().flatten(0, -2), kind), labels


def _flat_labels(shape: torch.Size, labels: Tensor, check: bool) -> Tensor:
    """Return the labels as (N,) int64, which torch indexes with."""
    if labels.shape != shape[:-1]:
        raise ValueError(f"labels {tuple(labels.shape)} do not fit logits {tuple(shape)}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be whole numbers, not {labels.dtype}")
    labels = labels.flatten().long()
    if check:
        valid = (labels >= 0) & (labels < shape[-1]) | (labels == UNLABELLED)
        require(valid, wrong_labels(shape[-1]), labels)
    return labels


def upcast(values: Tensor) -> Tensor:
    """Return the values in float32, or in float64 if they are already."""
    return values if values.dtype == torch.float64 else values.float()


def masked_product(shares: Tensor, values: Tensor) -> Tensor:
    """Return shares times values, and zero where the share is zero, even if the value is infinite."""
    return torch.where(shares != 0, shares * values, 0.0)
