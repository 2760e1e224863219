"""Losses and gradient of frames on a GPU, by three Triton kernels and next to no other operation.

At the size of usual batches a GPU computes a loss faster than Python can start a dozen operations.  So one kernel does
all that a frame needs for its loss, one turns the frames' sums into the losses of the batch, and one writes the
gradient, in the backward pass, where its factor is known.  The logits are read from memory once in each direction.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from asr_kd.losses.frames import NEGATIVE, UNLABELLED, wrong_labels
from asr_kd.losses.targets import CompactTargets, Targets

BLOCK = 4096  # classes that one program holds at a time
LOG2_E = tl.constexpr(math.log2(math.e))
LN2 = tl.constexpr(math.log(2))
LOWEST = tl.constexpr(torch.finfo(torch.float32).min)
TINY = tl.constexpr(torch.finfo(torch.float32).tiny)
NO_LABEL = tl.constexpr(UNLABELLED)
#: What is kept of a frame for its gradient: the highest logit, mass / Σ e^((z − highest) / T), Σ e^(z − highest), and
#: of compact targets the tail's share, of a teacher's logits the highest one and log₂ of their sum.
STATISTICS = 5
#: What is summed over the frames, each times its weight: cross-entropy, KL, hard part, cross-entropy of frames without
#: a label, one, one for those with a label; and the number of labels that are none.
SUMS = 7
FIRST_SUM, NUM_SUMS = tl.constexpr(STATISTICS), tl.constexpr(SUMS)


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
def _log_q(t, scale, peak, log_sum):  # type: ignore[no-untyped-def]
    """Return log₂ of a teacher's probabilities; that of zero would turn products into NaN."""
    return tl.maximum(scale * (t - peak), -2000.0) - log_sum


@triton.jit
def _read(  # type: ignore[no-untyped-def]
    logits, logits_row, logits_column, soft, soft_row, soft_column, kept_classes, kept, num_kept, base, base_sums,
    labels, weights, rows, frames, first, scale,
    CLASSES: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr, KEPT_BLOCK: tl.constexpr,
):  # fmt: skip
    """One frame's ``STATISTICS`` and ``SUMS``.

    rows: (``STATISTICS`` + ``SUMS``, frames), one below the other.
    first: number of the frame in the first row of ``logits``.
    KIND: 0 probabilities, 1 teacher's logits, 2 compact without a tail, 3 with an even one, 4 a prior's.
    """
    logits += tl.program_id(0).to(tl.int64) * logits_row
    row = first + tl.program_id(0).to(tl.int64)
    statistics, sums = rows + row, rows + FIRST_SUM * frames + row
    weight = 1.0
    if weights is not None:
        weight = tl.load(weights + row).to(tl.float32)
        if weight == 0:  # padding: it may contain NaN
            for number in tl.static_range(NUM_SUMS):
                tl.store(sums + number * frames, 0.0)
            return
    soft += row * soft_row
    peak, sum_soft, sum_hard = _sums(logits, logits_column, scale, CLASSES, BLOCK, labels is not None)

    mass, dot, entropy, share = 1.0, 0.0, 0.0, 0.0  # Σ q, Σ q·y and the entropy in bits; y = log₂ e^((z − peak) / T)
    soft_peak, log_sum = 0.0, 0.0
    if KIND == 1:
        soft_peak, soft_sum, _ = _sums(soft, soft_column, scale, CLASSES, BLOCK, False)
        log_sum = tl.log2(soft_sum)
    if KIND == 0:
        mass = 0.0
    if KIND >= 2:
        mass, of_base, spread, used = 0.0, 0.0, 0.0, 0.0
        start = 0
        while start < num_kept:  # a range would be unknown to Triton's interpreter with NumPy 2.4
            place = start + tl.arange(0, KEPT_BLOCK)
            q = tl.load(kept + row * num_kept + place, mask=place < num_kept, other=0).to(tl.float32)
            mass += tl.sum(q, 0)
            entropy -= tl.sum(tl.where(q > 0, q * tl.log2(tl.maximum(q, TINY)), 0.0), 0)
            used += tl.sum(tl.where(q > 0, 1.0, 0.0), 0)
            if KIND == 4:
                column = tl.load(kept_classes + row * num_kept + place, mask=place < num_kept, other=0)
                b = tl.where(q > 0, tl.load(base + column), 0.0)
                of_base += tl.sum(b, 0)
                spread += tl.sum(tl.where(b > 0, b * tl.log2(tl.maximum(b, TINY)), 0.0), 0)
            start += KEPT_BLOCK
        if KIND >= 3:
            others = CLASSES - used
            if KIND == 4:
                others = tl.load(base_sums) - of_base
            # If all classes are kept, one minus their sum is only rounding.
            tail = tl.where(used < CLASSES, tl.maximum(1 - mass, 0.0), 0.0)
            share = tl.where(used < CLASSES, tail / tl.maximum(others, TINY), 0.0)
            mass += tail
            entropy -= tl.where(tail > 0, tail * tl.log2(tl.maximum(share, TINY)), 0.0)
            if KIND == 4:
                entropy -= share * (tl.load(base_sums + 1) - spread)
    if KIND != 2:
        for start in range(0, CLASSES, BLOCK):
            columns = start + tl.arange(0, BLOCK)
            inside = columns < CLASSES
            z = tl.load(logits + columns * logits_column, mask=inside, other=-float("inf")).to(tl.float32)
            y = scale * (z - peak)
            if KIND == 0:
                q = tl.load(soft + columns * soft_column, mask=inside, other=0).to(tl.float32)
                mass += tl.sum(q, 0)
                entropy -= tl.sum(q * tl.log2(tl.maximum(q, TINY)), 0)
                dot += tl.sum(q * tl.maximum(y, LOWEST), 0)
            if KIND == 1:
                t = tl.load(soft + columns * soft_column, mask=inside, other=-float("inf")).to(tl.float32)
                log_q = _log_q(t, scale, soft_peak, log_sum)
                entropy -= tl.sum(tl.exp2(log_q) * log_q, 0)
                dot += tl.sum(tl.exp2(log_q) * tl.maximum(y, LOWEST), 0)
            if KIND == 3:
                dot += tl.sum(tl.where(inside, y, 0.0), 0)
            if KIND == 4:
                b = tl.load(base + columns, mask=inside, other=0)
                dot += tl.sum(tl.where(inside, b * y, 0.0), 0)
    if KIND >= 2:
        dot = tl.where(share != 0, share * dot, 0.0)  # also where a class that gets nothing has a logit of −inf
        start = 0
        while start < num_kept:
            place = start + tl.arange(0, KEPT_BLOCK)
            q = tl.load(kept + row * num_kept + place, mask=place < num_kept, other=0).to(tl.float32)
            column = tl.load(kept_classes + row * num_kept + place, mask=place < num_kept, other=0)
            change = q
            if KIND == 3:
                change = tl.where(q > 0, q - share, 0.0)
            if KIND == 4:
                change = tl.where(q > 0, q - share * tl.load(base + column), 0.0)
            z = tl.load(logits + column * logits_column).to(tl.float32)
            dot += tl.sum(tl.where(change != 0, change * scale * (z - peak), 0.0), 0)
            start += KEPT_BLOCK

    cross_entropy = LN2 * (mass * tl.log2(sum_soft) - dot)
    tl.store(statistics, peak)
    tl.store(statistics + frames, mass / sum_soft)
    tl.store(statistics + 2 * frames, sum_hard)
    tl.store(statistics + 3 * frames, share + soft_peak)
    tl.store(statistics + 4 * frames, log_sum)
    tl.store(sums, weight * cross_entropy)
    tl.store(sums + frames, weight * (cross_entropy - LN2 * entropy))
    tl.store(sums + 4 * frames, weight)
    if labels is not None:
        label = tl.load(labels + row)
        labelled = label != NO_LABEL
        valid = (label >= 0) & (label < CLASSES)
        z = tl.load(logits + tl.where(valid, label, 0) * logits_column).to(tl.float32)
        hard = LN2 * tl.log2(sum_hard) - (z - peak)
        tl.store(sums + 2 * frames, tl.where(labelled, weight * hard, 0.0))
        tl.store(sums + 3 * frames, tl.where(labelled, 0.0, weight * cross_entropy))
        tl.store(sums + 5 * frames, tl.where(labelled, weight, 0.0))
        tl.store(sums + 6 * frames, tl.where(labelled & (valid == 0), 1.0, 0.0))


@triton.jit
def _total(sums, frames, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return a sum over the frames, in float64."""
    total = tl.zeros((BLOCK,), tl.float64)
    start = 0
    while start < frames:
        place = start + tl.arange(0, BLOCK)
        total += tl.load(sums + place, mask=place < frames, other=0).to(tl.float64)
        start += BLOCK
    return tl.sum(total, 0)


@triton.jit
def _finish(  # type: ignore[no-untyped-def]
    rows, frames, out, temperature, hard_weight,
    LABELLED: tl.constexpr, SOFT: tl.constexpr, HARD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Total, soft, hard, KL, the weight of all frames and of those with a label; whether soft targets and labels are
    valid.

    SOFT, HARD: whether that part has a weight above zero; a part that has none is left out even where it is infinite.
    """
    sums = rows + FIRST_SUM * frames
    square = temperature * temperature
    weight = _total(sums + 4 * frames, frames, BLOCK)
    share = tl.where(weight > 0, 1 / tl.where(weight > 0, weight, 1.0), 0.0)
    soft = square * _total(sums, frames, BLOCK) * share
    total, hard, labelled, wrong = soft, 0.0 * weight, 0.0 * weight, 0.0 * weight
    if LABELLED:
        hard_sum = _total(sums + 2 * frames, frames, BLOCK)
        labelled = _total(sums + 5 * frames, frames, BLOCK)
        wrong = _total(sums + 6 * frames, frames, BLOCK)
        hard = tl.where(labelled > 0, hard_sum / tl.where(labelled > 0, labelled, 1.0), 0.0)
        if HARD:
            total = (hard_sum + square * _total(sums + 3 * frames, frames, BLOCK)) * share
            if SOFT:
                total = (1 - hard_weight) * soft + hard_weight * total
    tl.store(out, total)
    tl.store(out + 1, soft)
    tl.store(out + 2, hard)
    tl.store(out + 3, _total(sums + frames, frames, BLOCK) * share)
    tl.store(out + 4, weight)
    tl.store(out + 5, labelled)
    tl.store(out + 6, tl.where(soft < -1e-3, 0.0, 1.0))
    tl.store(out + 7, tl.where(wrong > 0, 0.0, 1.0))


@triton.jit
def _slope(  # type: ignore[no-untyped-def]
    logits, logits_row, logits_column, soft, soft_row, soft_column, kept_classes, kept, num_kept, base,
    labels, weights, rows, frames, first, scale, temperature, hard_weight, factor, total_weight,
    out, out_row, out_column, CLASSES: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr, KEPT_BLOCK: tl.constexpr,
):  # fmt: skip
    """One frame's gradient, times ``factor``; the other names are those of ``_read``."""
    logits += tl.program_id(0).to(tl.int64) * logits_row
    out += tl.program_id(0).to(tl.int64) * out_row
    row = first + tl.program_id(0).to(tl.int64)
    weight = 1.0
    if weights is not None:
        weight = tl.load(weights + row).to(tl.float32)
        if weight == 0:
            for start in range(0, CLASSES, BLOCK):
                columns = start + tl.arange(0, BLOCK)
                tl.store(out + columns * out_column, tl.zeros((BLOCK,), tl.float32), mask=columns < CLASSES)
            return
    soft += row * soft_row
    statistics = rows + row
    weight = tl.load(factor).to(tl.float32) * (weight / tl.load(total_weight)).to(tl.float32)
    soft_factor, hard_factor, hard_rate, label = temperature * weight, 0.0, 0.0, -1
    if labels is not None:
        label = tl.load(labels + row)
        hard_factor = tl.where(label == NO_LABEL, 0.0, hard_weight * weight)
        hard_rate = hard_factor / tl.load(statistics + 2 * frames)
        soft_factor = tl.where(label == NO_LABEL, 1.0, 1 - hard_weight) * temperature * weight
    peak, soft_rate = tl.load(statistics), soft_factor * tl.load(statistics + frames)
    share = tl.load(statistics + 3 * frames)  # or the teacher's highest logit
    log_sum = tl.load(statistics + 4 * frames)
    for start in range(0, CLASSES, BLOCK):
        columns = start + tl.arange(0, BLOCK)
        inside = columns < CLASSES
        z = tl.load(logits + columns * logits_column, mask=inside, other=-float("inf")).to(tl.float32) - peak
        slope = soft_rate * tl.exp2(scale * z)
        if labels is not None:
            slope += hard_rate * tl.exp2(LOG2_E * z) - tl.where(columns == label, hard_factor, 0.0)
        if KIND == 0:
            slope -= soft_factor * tl.load(soft + columns * soft_column, mask=inside, other=0).to(tl.float32)
        if KIND == 1:
            t = tl.load(soft + columns * soft_column, mask=inside, other=-float("inf")).to(tl.float32)
            slope -= soft_factor * tl.exp2(_log_q(t, scale, share, log_sum))
        if KIND == 3:
            slope -= soft_factor * share
        if KIND == 4:
            slope -= soft_factor * share * tl.load(base + columns, mask=inside, other=0)
        tl.store(out + columns * out_column, slope, mask=inside)
    if KIND >= 2:
        tl.debug_barrier()  # what follows writes over some of the gradient
        start = 0
        while start < num_kept:
            place = start + tl.arange(0, KEPT_BLOCK)
            q = tl.load(kept + row * num_kept + place, mask=place < num_kept, other=0).to(tl.float32)
            column = tl.load(kept_classes + row * num_kept + place, mask=place < num_kept, other=0)
            z = tl.load(logits + column * logits_column).to(tl.float32) - peak
            slope = soft_rate * tl.exp2(scale * z) - soft_factor * q
            if labels is not None:
                slope += hard_rate * tl.exp2(LOG2_E * z) - tl.where(column == label, hard_factor, 0.0)
            # The unused places of a frame that keeps fewer may name a class that it keeps.
            tl.store(out + column * out_column, slope, mask=q > 0)
            start += KEPT_BLOCK


class GPUSweep:
    """What ``asr_kd.losses.sweep.Sweep`` does, on a GPU.

    Args:
        targets, labels: of all frames, validated but for the values of the labels.  No "bucket".
        weights: (N,) weights of the frames; None: 1 each.
        temperature, hard_weight: see ``frame_kd_loss``.
        classes: C.
    """

    def __init__(
        self, targets: Targets, labels: Tensor | None, weights: Tensor | None, temperature: float, hard_weight: float,
        classes: int,
    ) -> None:  # fmt: skip
        self.labels, self.weights, self.temperature = labels, weights, temperature
        self.hard_weight = 0.0 if labels is None else hard_weight
        self.classes, self.scale = classes, 1 / (temperature * math.log(2))
        self.soft: Tensor | None = None
        self.kept: tuple[Tensor, Tensor] | None = None
        self.base: Tensor | None = None
        self.base_sums: Tensor | None = None
        if isinstance(targets, CompactTargets):
            self.kept, like = (targets.classes.contiguous(), targets.probabilities.contiguous()), targets.classes
            self.kind = {"none": 2, "even": 3, "prior": 4}[targets.tail]
            if targets.prior is not None:
                self.base = targets.prior.float().contiguous()
                self.base_sums = torch.stack([self.base.sum(), torch.xlogy(self.base, self.base).sum() / math.log(2)])
        else:
            self.soft, self.kind, like = targets.values, int(targets.kind == "logits"), targets.values
        self.frames = like.shape[0]
        self.rows = torch.empty(STATISTICS + SUMS, self.frames, device=like.device, dtype=torch.float32)
        kept = 1 if self.kept is None else triton.next_power_of_2(max(1, self.kept[0].shape[1]))
        block = min(BLOCK, triton.next_power_of_2(classes))
        self.sizes = {"CLASSES": classes, "BLOCK": block, "KEPT_BLOCK": min(1024, kept)}
        self.sizes |= {"KIND": self.kind, "num_warps": 8}

    def read(self, logits: Tensor, first: int = 0) -> None:
        """Take in the frames from number ``first`` on, given their logits (n, C) of any strides."""
        if logits.shape[0]:
            with _device(logits):
                _read[(logits.shape[0],)](
                    *self._values(logits), self.base, self.base_sums, self.labels, self.weights, self.rows, self.frames,
                    first, self.scale, **self.sizes,
                )  # fmt: skip

    def losses(self) -> list[Tensor]:
        """Return all of ``KDLoss``, after the last frame."""
        labelled, out = self.labels is not None, self.rows.new_empty(8)
        with _device(out):
            _finish[(1,)](
                self.rows, self.frames, out, self.temperature, self.hard_weight, LABELLED=labelled,
                SOFT=self.hard_weight < 1, HARD=self.hard_weight > 0, BLOCK=4096, num_warps=8,
            )  # fmt: skip
        *values, soft_valid, labels_valid = out.unbind()
        torch._assert_async(soft_valid, NEGATIVE)
        if labelled:
            torch._assert_async(labels_valid, wrong_labels(self.classes))
        return values

    def write(self, logits: Tensor, out: Tensor, factor: Tensor, weight: Tensor, first: int = 0) -> None:
        """Write the gradient of frames that were read, times ``factor``, to ``out`` (n, C) of any floating dtype.

        Args:
            factor: a scalar.
            weight: a scalar, the sum of the weights of all frames.
        """
        if logits.shape[0]:
            with _device(logits):
                _slope[(logits.shape[0],)](
                    *self._values(logits), self.base, self.labels, self.weights, self.rows, self.frames, first,
                    self.scale, self.temperature, self.hard_weight, factor, weight, out, *out.stride(), **self.sizes,
                )  # fmt: skip

    def _values(self, logits: Tensor) -> tuple[Any, ...]:
        """Logits and soft targets, as the kernels take them."""
        if self.kept is not None:
            return logits, *logits.stride(), logits, 0, 0, *self.kept, self.kept[0].shape[1]
        assert self.soft is not None
        return logits, *logits.stride(), self.soft, *self.soft.stride(), None, None, 0


def _device(values: Tensor) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.device(values.device) if values.is_cuda else contextlib.nullcontext()
