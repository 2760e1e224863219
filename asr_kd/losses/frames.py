"""Which frames of a batch count, with what weight, and which of them have a label."""

from typing import NamedTuple

import torch
from torch import Tensor

#: Label of a frame that has none, as ``ignore_index`` in torch's cross_entropy.
UNLABELLED = -100
NEGATIVE = "soft targets must be probabilities, not their logarithms or other negative values"


def wrong_labels(classes: int) -> str:
    """Return what is wrong with labels that are none."""
    return f"labels must lie in [0, {classes}), or be {UNLABELLED} for none"


class Frames(NamedTuple):
    """Weights of the N frames of a batch.

    Attributes:
        share: (N,) float64, each frame's weight divided by the sum of all; 0 for frames that do not count.
        labelled: (N,) bool; None if the loss has no labels.
        weight: sum of the weights of the frames that count.
        labelled_weight: sum of the weights of those that have a label.
    """

    share: Tensor
    labelled: Tensor | None
    weight: Tensor
    labelled_weight: Tensor

    def mean_of_labelled(self, total: Tensor) -> Tensor:
        """Turn a sum over labelled frames, weighted by ``share``, into their mean; 0 if no frame has a label."""
        fraction = (self.labelled_weight / self.weight).to(total.dtype)
        return torch.where(fraction > 0, total / fraction, 0.0)


def frame_weights(
    shape: torch.Size, device: torch.device, mask: Tensor | None, lengths: Tensor | None, weights: Tensor | None
) -> Tensor | None:
    """Return the weights (N,) of frames of any shape in float64; None if all are 1.  See ``frame_kd_loss``.

    Raises:
        ValueError: shapes that do not fit, or weights that are negative or not finite.
    """
    if weights is not None:
        require((weights >= 0) & (weights < torch.inf), "weights of frames must be finite and not negative")
    for name, value in (("mask", mask), ("weights", weights)):
        if value is not None and value.shape != shape:
            raise ValueError(f"{name} {tuple(value.shape)} do not fit frames {tuple(shape)}")
    if lengths is not None and (len(shape) != 2 or lengths.shape != shape[:1]):
        raise ValueError(f"lengths {tuple(lengths.shape)} need logits (B, T, C); frames are {tuple(shape)}")
    if mask is None and lengths is None and weights is None:
        return None
    weight = torch.ones(shape, dtype=torch.float64, device=device) if weights is None else weights.detach().double()
    if mask is not None:
        weight = torch.where(mask.bool(), weight, 0.0)
    if lengths is not None:
        inside = torch.arange(shape[1], device=device) < lengths.to(device).unsqueeze(1)
        weight = torch.where(inside, weight, 0.0)
    return weight.flatten()


def weigh_frames(
    shape: torch.Size, device: torch.device, labels: Tensor | None, mask: Tensor | None, lengths: Tensor | None,
    weights: Tensor | None,
) -> Frames:  # fmt: skip
    """Return the weights of frames of any shape, as one dimension; arguments and errors are those of
    ``frame_weights``."""
    weight = frame_weights(shape, device, mask, lengths, weights)
    if weight is None:
        weight = torch.ones(shape.numel(), dtype=torch.float64, device=device)
    total = weight.sum()
    labelled = None if labels is None else labels.flatten() != UNLABELLED
    labelled_total = torch.zeros_like(total) if labelled is None else torch.where(labelled, weight, 0.0).sum()
    return Frames(torch.where(total > 0, weight / total, 0.0), labelled, total, labelled_total)


def require(valid: Tensor, message: str, values: Tensor | None = None) -> None:
    """Raise ValueError unless every element of ``valid`` is true; a GPU reports it later, so that nothing waits for it.

    Under torch.compile nothing is checked.

    Args:
        values: what was checked; the message names the first wrong one (on a CPU).
    """
    if torch.compiler.is_compiling():
        return
    if valid.device.type != "cpu":
        torch._assert_async(valid.all(), message)
    elif not valid.all():
        wrong = "" if values is None else f": {values[~valid][0].item()} is neither"
        raise ValueError(message + wrong)


def mean(values: Tensor, share: Tensor) -> Tensor:
    """Return the weighted mean of (N,) values; those of frames that do not count may be anything, NaN too."""
    return (torch.where(share > 0, values, 0.0) * share.to(values.dtype)).sum()


def add_parts(soft: Tensor, hard: Tensor, hard_weight: float) -> Tensor:
    """Return the weighted sum of two parts; a part of weight zero is left out, even where it is infinite."""
    if hard_weight in (0, 1):
        return hard if hard_weight else soft
    return (1 - hard_weight) * soft + hard_weight * hard
