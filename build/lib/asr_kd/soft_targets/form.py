"""What is stored of the distributions of teachers: temperatures, the mean over teachers, and which classes are kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.losses import Mean, Tail
from asr_kd.soft_targets.rows import TargetRows

#: What a teacher gives for a frame.  Log-probabilities are logits whose softmax they are themselves.
PosteriorKind = Literal["logits", "log-probabilities", "probabilities"]
#: What happens to the classes below the floor.
Kept = Tail | Literal["sampled", "drawn"]
#: Deviation from 1 of the sum of a frame's probabilities: bfloat16 and Kaldi's compressed matrices round by that much.
SUM_TOLERANCE = 0.01
MAX_CLASSES = 1 << 16  # the store has two bytes for a class


@dataclasses.dataclass(frozen=True)
class Form:
    """What is stored; see the flags of ``python -m asr_kd.soft_targets``.

    Attributes:
        temperatures: T > 0, all different.
        mean: how the distributions of several teachers are averaged.
        floor: smallest probability that is always kept.
        tail: what happens to the classes below the floor.
        top: maximum number of classes per frame, unless ``tail`` is "sampled" or "drawn".
        draws: random draws per frame, if ``tail`` is "drawn".
    """

    temperatures: Sequence[float] = (1.0,)
    mean: Mean = "arithmetic"
    floor: float = 0.02
    tail: Kept = "sampled"
    top: int = 255
    draws: int = 64

    def __post_init__(self) -> None:
        different = set(self.temperatures)
        if not different or len(different) < len(self.temperatures) or not all(0 < t < np.inf for t in different):
            raise UserError(f"temperatures must be positive and different, not {self.temperatures}: correct them")
        if self.tail == "sampled" and self.floor < 0.004:
            raise UserError("the sampled tail needs a floor of 0.004 or more: raise it, or choose another tail")

    @property
    def stored_tail(self) -> Tail:
        """How a reader treats the classes that are not kept: random draws leave no tail."""
        return "none" if self.tail == "sampled" or self.tail == "drawn" else self.tail

    def pack(self, average: Tensor, generator: torch.Generator) -> TargetRows:
        """Return the compact form of dense (T, C) probabilities."""
        if self.tail == "drawn":
            return TargetRows.importance_sample(average, self.draws, generator)
        if self.tail == "sampled":
            return TargetRows.threshold_sample(average, self.floor, generator)
        return TargetRows.pack(average, self.top, self.floor, self.stored_tail)


def as_logits(values: Tensor | np.ndarray, kind: PosteriorKind, key: str) -> Tensor:
    """Return what a teacher gives for an utterance as logits (T, C) whose softmax is its distribution.

    Args:
        key: name of the utterance, for messages.

    Raises:
        UserError: they are not (T, C), or not of that kind.
    """
    if values.ndim != 2 or not len(values) or not _is_floating_point(values):
        raise UserError(
            f"the posteriors of {key} are {values.dtype} of shape {tuple(values.shape)}: give floating-point numbers "
            "(frames, classes), with at least one frame"
        )
    values = _tensor(values).detach()
    if kind == "logits":
        return values
    values = values.double() if values.dtype == torch.float64 else values.float()
    sums = values.sum(1) if kind == "probabilities" else values.logsumexp(1).exp()
    wrong = ~((sums - 1).abs() <= SUM_TOLERANCE)  # NaN is wrong, too
    if wrong.any() or (kind == "probabilities" and bool((values < 0).any())):
        frame = int(wrong.int().argmax())
        raise UserError(
            f"the {kind} of {key} sum to {sums[frame]:.4g} in frame {frame}, or are negative: they must sum to 1; if "
            "they are no probabilities, give their kind (logits), else normalise them"
        )
    return values.log() if kind == "probabilities" else values


def kind_of(values: Tensor | np.ndarray) -> PosteriorKind:
    """Return the kind of posteriors (T, C) by their sums: probabilities, log-probabilities, or else logits."""
    values = _tensor(values).float()
    if bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() <= SUM_TOLERANCE).all()):
        return "probabilities"
    return "log-probabilities" if bool((values.logsumexp(1).abs() <= SUM_TOLERANCE).all()) else "logits"


def _is_floating_point(values: Tensor | np.ndarray) -> bool:
    if isinstance(values, Tensor):
        return values.is_floating_point()
    return values.dtype.kind == "f" and values.dtype.itemsize <= 8


def _tensor(values: Tensor | np.ndarray) -> Tensor:
    """Return a tensor of floating-point numbers, whatever their byte order and strides."""
    if isinstance(values, Tensor):
        return values
    return torch.from_numpy(np.array(values, values.dtype.newbyteorder("="), order="C"))
