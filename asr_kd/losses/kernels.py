"""Which kernel computes the lean losses, if any.

Kernels are optional, and torch's operations have the same values.  ASR_KD_KERNELS=0 in the environment turns them off.
"""

import functools
import importlib
import os

import torch
from torch import Tensor

from asr_kd.losses import cpu_sweep
from asr_kd.losses.sweep import Kernel
from asr_kd.losses.targets import CompactTargets, Targets

CPU_LOGITS = 1 << 20  # number of logits from which on a CPU's kernel is used, which takes seconds to build


def find_kernel(logits: Tensor, frames: int, targets: Targets) -> Kernel | None:
    """Return what computes a chunk's losses and gradient in one call; None if only torch's operations do.

    The targets of a bucket need the logarithm of a sum over the classes that a frame does not keep, which are others in
    each frame: a pass of its own, and rarely used.

    Args:
        logits: (n, C) of all frames or of a chunk.
        frames: number of all frames.
        targets: soft targets.
    """
    if logits.dtype == torch.float64 or torch.compiler.is_compiling() or os.environ.get("ASR_KD_KERNELS") == "0":
        return None
    if isinstance(targets, CompactTargets) and targets.tail == "bucket":
        return None
    if logits.is_cuda:
        return _triton()
    if not logits.is_cpu or frames * logits.shape[1] < CPU_LOGITS or not cpu_sweep.can_sweep(logits, targets):
        return None
    return None if cpu_sweep.library() is None else cpu_sweep.sweep_frames


@functools.cache
def _triton() -> Kernel | None:
    try:
        module = importlib.import_module("asr_kd.losses.triton_sweep")  # Triton is not everywhere
    except ImportError:
        return None
    kernel: Kernel = module.sweep_frames
    return kernel
