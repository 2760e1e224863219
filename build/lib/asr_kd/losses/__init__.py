"""Frame-level distillation losses of "Distilling the Knowledge in a Neural Network" (Hinton, Vinyals, Dean 2015).

Depends on torch alone, so it can be imported (or copied) into any training loop:

    >>> import torch
    >>> from asr_kd.losses import average_distributions, frame_kd_loss
    >>> logits = torch.randn(4, 7, requires_grad=True)
    >>> soft = average_distributions([torch.randn(4, 7), torch.randn(4, 7)], temperature=2.0)
    >>> loss = frame_kd_loss(logits, soft, labels=torch.tensor([0, 1, 2, 3]), temperature=2.0)
    >>> loss.total.backward()

``frame_kd_loss`` is the entry point, and ``FrameKDLoss`` is the same as a module.  ``linear_kd_loss`` takes the inputs
and weights of the output layer instead of logits, and never holds all logits.  ``logit_matching_loss`` is section 2.1.
"""

from asr_kd.losses.frame_kd import FrameKDLoss, KDLoss, frame_kd_loss, linear_kd_loss, logit_matching_loss
from asr_kd.losses.targets import CompactTargets, Kind, Mean, Tail, average_distributions

__all__ = [
    "CompactTargets",
    "FrameKDLoss",
    "KDLoss",
    "Kind",
    "Mean",
    "Tail",
    "average_distributions",
    "frame_kd_loss",
    "linear_kd_loss",
    "logit_matching_loss",
]
