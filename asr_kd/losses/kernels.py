"""Which kernel computes the lean losses, if any: kernels are optional, and plain torch has the same values."""

import functools
import os

import torch

from asr_kd.losses.sweep import Kernel
from asr_kd.losses.targets import CompactTargets, Targets


def find_kernel(device: torch.device, dtype: torch.dtype, targets: Targets) -> Kernel | None:
    """Return what computes a chunk's losses and gradient in one call; None if only torch's operations do.

    The targets of a bucket need the logarithm of a sum over the classes that a frame does not keep, which are others in
    each frame: a pass of its own, and rarely used.

    Args:
        device, dtype: of the logits.
        targets: soft targets.
    """
    if dtype == torch.float64 or torch.compiler.is_compiling() or os.environ.get("ASR_KD_KERNELS") == "0":
        return None
    if isinstance(targets, CompactTargets) and targets.tail == "bucket":
        return None
    return _triton() if device.type == "cuda" else None


@functools.cache
def _triton() -> Kernel | None:
    try:
        from asr_kd.losses.triton_sweep import sweep_frames
    except ImportError:
        return None
    return sweep_frames
