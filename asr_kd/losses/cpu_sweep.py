"""Losses and gradient of frames on a CPU by a kernel that the machine's C++ compiler builds, once for all processes."""

from __future__ import annotations

import ctypes
import functools
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from asr_kd.common.compiled import compiled
from asr_kd.losses.sweep import Sweep
from asr_kd.losses.targets import CompactTargets, Dense

SOURCE = Path(__file__).with_name("cpu_sweep.cpp")
FLAGS = ["-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math"]
#: Flags for the instructions that torch found, by its name for them.
INSTRUCTIONS = {
    "AVX2": ["-mavx2", "-mfma"],
    "AVX512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"],
}
KINDS = {"probabilities": 0, "logits": 1, "none": 2, "even": 3, "prior": 4}
POINTERS = """logits soft out kept_classes change values share base labels excluded soft_scale hard_scale mass total
    hard_total label_y dot entropy"""
NUMBERS = ["logits_row", "soft_row", "out_row", "classes", "num_kept", "kind"]


class _Arguments(ctypes.Structure):
    """The structure of the same name in the source."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in POINTERS.split()),
        *((name, ctypes.c_int64) for name in NUMBERS),
        ("temperature", ctypes.c_double),
    )


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the kernel, built for this CPU if it was not before; None without a compiler."""
    return compiled(SOURCE, [*FLAGS, *INSTRUCTIONS.get(torch.backends.cpu.get_cpu_capability(), [])])


def can_sweep(logits: Tensor, targets: Dense | CompactTargets) -> bool:
    """Whether the kernel takes these logits (N, C) and targets: float32, the classes of a frame side by side."""
    tensors = [logits, targets.values] if isinstance(targets, Dense) else [logits]
    return all(t.dtype == torch.float32 and t.stride(1) == 1 for t in tensors)


def sweep_frames(sweep: Sweep, logits: Tensor, span: slice, out: Tensor | None) -> None:
    """Add the losses of the frames ``span`` to those of ``sweep``; see ``can_sweep``.

    Args:
        sweep: of all frames; compact targets have no "bucket".
        logits: (n, C).
        out: (n, C) for the gradient; None: no gradient.
    """
    soft: Any = sweep.soft
    frames, classes = logits.shape
    of_sweep = ("excluded", "soft_scale", "hard_scale", "total", "hard_total", "label_y", "labels")
    tensors = {name: getattr(sweep, name) for name in of_sweep}
    tensors |= {"mass": soft.mass, "dot": soft.dot, "entropy": soft.entropy}
    if isinstance(soft.targets, CompactTargets):
        change, share = soft.scale(sweep.soft_scale)
        tensors |= {"kept_classes": soft.classes, "change": change, "values": soft.values, "share": share}
        kind, kept = soft.targets.tail, soft.classes.shape[1]
    else:
        tensors["soft"] = soft.targets.values
        kind, kept = soft.targets.kind, 0
    given = {name: t[span] if name == "soft" else t[span].contiguous() for name, t in tensors.items() if t is not None}
    given |= {"logits": logits} | ({} if out is None else {"out": out})
    if kept:
        given["base"] = soft.parts.base.contiguous()
    arguments = _Arguments(
        **{name: t.data_ptr() for name, t in given.items()},
        **{f"{name}_row": given[name].stride(0) for name in ("logits", "soft", "out") if name in given},
        classes=classes, num_kept=kept, kind=KINDS[kind], temperature=sweep.temperature,
    )  # fmt: skip
    kernel = library()
    assert kernel is not None
    threads = torch.get_num_threads()
    rows = math.ceil(frames / (1 if threads == 1 else 8 * threads))  # small parts, in case other work slows a core

    def run(first: int) -> None:
        spare = logits.new_empty(3 * classes)
        last = min(first + rows, frames)
        kernel.sweep_frames(
            ctypes.byref(arguments), ctypes.c_int64(first), ctypes.c_int64(last), ctypes.c_void_p(spare.data_ptr())
        )

    if threads == 1:
        run(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(run, range(0, frames, rows)))
