"""Which kernel computes the lean losses, if any.

Kernels are optional, and torch's operations have the same values.  ASR_KD_KERNELS=0 in the environment turns them off.
"""

from __future__ import annotations

import functools
import importlib
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from asr_kd.losses import cpu_sweep
from asr_kd.losses.sweep import Kernel
from asr_kd.losses.targets import CompactTargets, Targets

if TYPE_CHECKING:
    from asr_kd.losses.triton_sweep import GPUSweep

CPU_LOGITS = 1 << 20  # number of logits from which on a CPU's kernel is used, which takes seconds to build


def find_kernel(logits: Tensor, frames: int, targets: Targets) -> Kernel | None:
    """Return what computes a chunk's losses and gradient in one call on a CPU; None if only torch's operations do.

    Args:
        logits: (n, C) of all frames or of a chunk.
        frames: number of all frames.
        targets: soft targets.
    """
    if not logits.is_cpu or frames * logits.shape[1] < CPU_LOGITS or not _has_kernel(logits, targets):
        return None
    if not cpu_sweep.can_sweep(logits, targets) or cpu_sweep.library() is None:
        return None
    return cpu_sweep.sweep_frames


def find_gpu_sweep(logits: Tensor, targets: Tensor | Targets) -> type[GPUSweep] | None:
    """Return the sweep of a GPU's kernels; None if only torch's operations compute these losses, or on a CPU."""
    if not logits.is_cuda or not _has_kernel(logits, targets):
        return None
    module = _triton()
    return None if module is None else module.GPUSweep


def _has_kernel(logits: Tensor, targets: Tensor | Targets) -> bool:
    """Whether there may be kernels for this loss.

    The targets of a bucket need the logarithm of a sum over the classes that a frame does not keep, which are others in
    each frame: a pass of its own, and rarely used.
    """
    if logits.dtype == torch.float64 or torch.compiler.is_compiling() or os.environ.get("ASR_KD_KERNELS") == "0":
        return False
    return not (isinstance(targets, CompactTargets) and targets.tail == "bucket")


@functools.cache
def _triton() -> Any:
    try:
        return importlib.import_module("asr_kd.losses.triton_sweep")  # Triton is not everywhere
    except ImportError:
        return None
