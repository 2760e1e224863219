"""Losses and gradient of frames on a GPU: one launch of a Triton kernel, which reads each row of logits twice.

A row's first reading finds its maximum and its sums of exponentials together (an online softmax); the second one writes
the gradient.  A row that fits the cache is read from memory once.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_kd.losses.targets import CompactTargets

if TYPE_CHECKING:
    from asr_kd.losses.sweep import Sweep

BLOCK = 4096  # classes that one program holds at a time
LOG2_E = tl.constexpr(math.log2(math.e))
LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
TINY = tl.constexpr(torch.finfo(torch.float32).tiny)


@triton.jit
def _sums(  # type: ignore[no-untyped-def]
    values, stride, scale, CLASSES: tl.constexpr, BLOCK: tl.constexpr, AT_ONE: tl.constexpr
):
    """Return the maximum m of a row, Σ 2^(scale · (value − m)), and Σ e^(value − m) if it is wanted (AT_ONE)."""
    peak, total, at_one = -float("inf"), 0.0, 0.0
    for start in range(0, CLASSES, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        z = tl.load(values + columns * stride, mask=columns < CLASSES, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(peak, tl.max(z, 0))
        origin = tl.where(higher == -float("inf"), 0.0, higher)  # no logit above −inf yet
        total = total * tl.exp2(scale * (peak - origin)) + tl.sum(tl.exp2(scale * (z - origin)), 0)
        if AT_ONE:
            at_one = at_one * tl.exp2(LOG2_E * (peak - origin)) + tl.sum(tl.exp2(LOG2_E * (z - origin)), 0)
        peak = higher
    return peak, total, at_one


@triton.jit
def _sweep(  # type: ignore[no-untyped-def]
    logits, logits_row, logits_column, soft, soft_row, soft_column, out, out_row, out_column,
    kept_classes, kept, change, values, share, base, labels, excluded, soft_scale, hard_scale,
    mass, total, hard_total, label_y, dot, entropy, num_kept, scale, CLASSES: tl.constexpr, KIND: tl.constexpr,
    LABELLED: tl.constexpr, GRADIENT: tl.constexpr, BLOCK: tl.constexpr, KEPT_BLOCK: tl.constexpr,
):  # fmt: skip
    """One frame.  KIND: 0 probabilities, 1 teacher's logits, 2 compact without a tail, 3 with an even one, 4 a prior's.

    The other names are those of ``Sweep`` and ``CompactRows``; ``change`` and ``share`` are as ``CompactRows.scale``
    returns them.
    """
    row = tl.program_id(0).to(tl.int64)
    logits += row * logits_row
    soft += row * soft_row
    out += row * out_row
    if tl.load(excluded + row):  # padding: it may contain NaN
        if GRADIENT:
            for start in range(0, CLASSES, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                zero = tl.zeros((BLOCK,), tl.float32)
                tl.store(out + columns * out_column, zero, mask=columns < CLASSES)
        return

    peak, sum_soft, sum_hard = _sums(logits, logits_column, scale, CLASSES, BLOCK, LABELLED)
    factor = tl.load(soft_scale + row)
    row_mass = 1.0
    if KIND == 0:
        row_mass = 0.0
        for start in range(0, CLASSES, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            row_mass += tl.sum(tl.load(soft + columns * soft_column, mask=columns < CLASSES, other=0).to(tl.float32), 0)
        tl.store(mass + row, row_mass)
    if KIND == 1:
        soft_peak, soft_sum, _ = _sums(soft, soft_column, scale, CLASSES, BLOCK, False)
    if KIND >= 2:
        row_mass = tl.load(mass + row)
    spread = 0.0
    if KIND >= 3:
        spread = tl.load(share + row)
    soft_rate = factor * row_mass / sum_soft
    tl.store(total + row, sum_soft)
    label, hard_factor, hard_rate = -1, 0.0, 0.0
    if LABELLED:
        label = tl.load(labels + row)
        hard_factor = tl.load(hard_scale + row)
        hard_rate = hard_factor / sum_hard
        tl.store(hard_total + row, sum_hard)
        tl.store(label_y + row, scale * (tl.load(logits + label * logits_column).to(tl.float32) - peak))

    sum_dot, sum_entropy = 0.0, 0.0
    if GRADIENT or KIND != 2:
        for start in range(0, CLASSES, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            inside = columns < CLASSES
            z = tl.load(logits + columns * logits_column, mask=inside, other=-float("inf")).to(tl.float32) - peak
            y = scale * z
            slope = soft_rate * tl.exp2(y)
            if LABELLED:
                slope += hard_rate * tl.exp2(LOG2_E * z) - tl.where(columns == label, hard_factor, 0.0)
            if KIND <= 1:
                if KIND == 0:
                    q = tl.load(soft + columns * soft_column, mask=inside, other=0).to(tl.float32)
                    log_q = tl.log2(tl.maximum(q, TINY))
                else:
                    t = tl.load(soft + columns * soft_column, mask=inside, other=-float("inf")).to(tl.float32)
                    # The logarithm of a probability of zero would turn the product below into NaN.
                    log_q = tl.maximum(scale * (t - soft_peak), -2000.0) - tl.log2(soft_sum)
                    q = tl.exp2(log_q)
                sum_entropy += tl.sum(q * log_q, 0)
                sum_dot += tl.sum(q * tl.maximum(y, LOWEST), 0)
                slope -= factor * q
            if KIND == 3:
                sum_dot += tl.sum(tl.where(inside, y, 0.0), 0)
                slope -= spread
            if KIND == 4:
                b = tl.load(base + columns, mask=inside, other=0)
                sum_dot += tl.sum(tl.where(inside, b * y, 0.0), 0)
                slope -= spread * b
            if GRADIENT:
                tl.store(out + columns * out_column, slope, mask=inside)
    tl.store(dot + row, sum_dot)
    if KIND <= 1:
        tl.store(entropy + row, -sum_entropy / LOG2_E)

    if KIND >= 2:
        tl.debug_barrier()  # what follows writes over some of the gradient
        start = 0
        while start < num_kept:  # a range would be unknown to Triton's interpreter with NumPy 2.4
            place = start + tl.arange(0, KEPT_BLOCK)
            inside = place < num_kept
            place += row * num_kept
            column = tl.load(kept_classes + place, mask=inside, other=0)
            z = tl.load(logits + column * logits_column, mask=inside, other=0).to(tl.float32) - peak
            tl.store(values + place, scale * z, mask=inside)
            if GRADIENT:
                slope = soft_rate * tl.exp2(scale * z) + tl.load(change + place, mask=inside, other=0)
                if LABELLED:
                    slope += hard_rate * tl.exp2(LOG2_E * z) - tl.where(column == label, hard_factor, 0.0)
                if KIND >= 3:
                    slope -= spread * tl.load(base + column, mask=inside, other=0)
                # The unused places of a frame that keeps fewer may name a class that it keeps.
                used = inside & (tl.load(kept + place, mask=inside, other=0) > 0)
                tl.store(out + column * out_column, slope, mask=used)
            start += KEPT_BLOCK


def sweep_frames(sweep: Sweep, logits: Tensor, span: slice, out: Tensor | None) -> None:
    """Add the losses of the frames ``span`` to those of ``sweep``.

    Args:
        sweep: for float16, bfloat16 or float32 logits; compact targets have no "bucket".
        logits: (n, C), any strides.
        out: (n, C) for the gradient, of any floating dtype; None: no gradient.
    """
    soft: Any = sweep.soft
    frames, classes = logits.shape
    teacher, compact = logits, [sweep.total] * 6  # for what is not read
    if isinstance(soft.targets, CompactTargets):
        change, share = soft.scale(sweep.soft_scale)
        tensors = (soft.classes, soft.parts.kept, change, soft.values, share)
        compact = [*(t[span].contiguous() for t in tensors), soft.parts.base.contiguous()]
        kind, kept = {"none": 2, "even": 3, "prior": 4}[soft.targets.tail], soft.classes.shape[1]
    else:
        teacher, kind, kept = soft.targets.values[span], int(soft.targets.kind == "logits"), 1
    gradient = logits if out is None else out
    labels = sweep.total if sweep.labels is None else sweep.labels
    per_frame = (labels, sweep.excluded, sweep.soft_scale, sweep.hard_scale, soft.mass, sweep.total, sweep.hard_total,
                 sweep.label_y, soft.dot, soft.entropy)  # fmt: skip
    with torch.cuda.device(logits.device) if logits.is_cuda else contextlib.nullcontext():
        _sweep[(frames,)](
            logits, *logits.stride(), teacher, *teacher.stride(), gradient, *gradient.stride(),
            *compact, *(t[span] for t in per_frame), kept, 1 / (sweep.temperature * math.log(2)),
            CLASSES=classes, KIND=kind, LABELLED=sweep.labels is not None, GRADIENT=out is not None,
            BLOCK=min(BLOCK, triton.next_power_of_2(classes)), KEPT_BLOCK=min(1024, triton.next_power_of_2(kept)),
            num_warps=8,
        )  # fmt: skip
