"""The lean losses: value and gradient in one sweep over chunks of frames."""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from asr_kd.losses.frames import Frames
from asr_kd.losses.kernels import find_gpu_sweep, find_kernel
from asr_kd.losses.sweep import Sweep
from asr_kd.losses.targets import Targets

if TYPE_CHECKING:
    from asr_kd.losses.triton_sweep import GPUSweep

CPU_CHUNK = 1 << 19  # logits per chunk and thread
GPU_CHUNK = 1 << 22  # minimum number of logits per chunk
MAPPED_BYTES, LARGE_PAGE, MADV_HUGEPAGE = 1 << 25, 1 << 21, mmap.MADV_HUGEPAGE if sys.platform == "linux" else 0


class LeanLoss(torch.autograd.Function):
    """Loss and gradient of logits; keeps the gradient, and no other tensor of that size."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Targets, labels: Tensor | None, frames: Frames,
        temperature: float, hard_weight: float, needs_gradient: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        rows = _chunk_rows(logits.shape, logits.device)
        kernel = find_kernel(logits, len(logits), targets)
        sweep = Sweep(targets, labels, frames, temperature, hard_weight, logits.dtype, rows, logits.shape[-1], kernel)
        gradient = _empty_like(logits) if needs_gradient else None
        if kernel is not None and len(logits):
            kernel(sweep, logits, slice(0, len(logits)), gradient)
        else:
            _sweep_chunks(sweep, logits, gradient, rows)
        ctx.save_for_backward(gradient, sweep.unit)
        losses = sweep.losses()
        ctx.mark_non_differentiable(*losses[1:])
        return losses

    @staticmethod
    def backward(ctx: Any, outer: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradient, unit = ctx.saved_tensors
        return _scaled(gradient, outer * unit), *(None,) * 6


class LeanGPULoss(torch.autograd.Function):
    """Loss of logits on a GPU; their gradient is computed in the backward pass, by a single kernel."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, sweep: GPUSweep) -> tuple[Tensor, ...]:
        sweep.read(logits)
        losses = sweep.losses()
        ctx.save_for_backward(logits)
        ctx.sweep, ctx.weight = sweep, losses[4].detach()
        ctx.mark_non_differentiable(*losses[1:])
        return tuple(losses)

    @staticmethod
    def backward(ctx: Any, outer: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        _refuse_second_derivative()
        (logits,) = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        ctx.sweep.write(logits, gradient, outer, ctx.weight)
        return gradient, None


class _ChunksOnGPU:
    """What ``LeanLinearLoss`` takes of a ``Sweep``, on a GPU."""

    def __init__(self, sweep: GPUSweep, frames: Frames, dtype: torch.dtype, rows: int) -> None:
        self.sweep, self.dtype = sweep, dtype
        self.one = frames.share.new_ones(())
        self.unit = self.one
        if dtype == torch.float16 and len(frames.share):  # as ``Sweep`` does
            largest = frames.share.max()
            self.unit = torch.where(largest > 0, largest, self.one)
        self.factor = self.one / self.unit
        self.gradient = frames.share.new_empty(rows, sweep.classes, dtype=dtype)

    def buffer(self, number: int, rows: int) -> Tensor:
        return self.gradient[:rows]

    def losses(self) -> tuple[Tensor, ...]:
        return tuple(self.sweep.losses()[:4])

    def __call__(self, logits: Tensor, span: slice, buffer: Tensor, out: Tensor | None) -> Tensor:
        self.sweep.read(logits, span.start)
        if out is None:
            return buffer
        self.sweep.write(logits, out, self.factor, self.one, span.start)
        return out


class LeanLinearLoss(torch.autograd.Function):
    """Loss and gradients of an output layer, which holds the logits of one chunk at a time."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, targets: Targets, labels: Tensor | None,
        frames: Frames, temperature: float, hard_weight: float, needs_gradient: tuple[bool, bool, bool], rows: int,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        classes = len(weight)
        dtype = inputs.dtype
        if torch.is_autocast_enabled(inputs.device.type):
            dtype = torch.get_autocast_dtype(inputs.device.type)
        cast_weight = weight.to(dtype)
        cast_bias = None if bias is None else bias.to(dtype)
        logits_buffer = inputs.new_empty(min(rows, len(inputs)), classes, dtype=dtype)
        gpu = find_gpu_sweep(logits_buffer, targets)
        if gpu is not None:
            swept = gpu(targets, labels, frames.share, temperature, hard_weight, classes)
            sweep: Sweep | _ChunksOnGPU = _ChunksOnGPU(swept, frames, dtype, len(logits_buffer))
        else:
            kernel = find_kernel(logits_buffer, len(inputs), targets)
            sweep = Sweep(targets, labels, frames, temperature, hard_weight, dtype, rows, classes, kernel)
        inputs_gradient = torch.empty_like(inputs) if needs_gradient[0] else None
        weight_gradient = torch.zeros_like(weight) if needs_gradient[1] else None
        bias_gradient = torch.zeros_like(bias) if bias is not None and needs_gradient[2] else None
        for start in range(0, len(inputs), rows):
            span = slice(start, start + rows)
            chunk = inputs[span].to(dtype)
            logits = logits_buffer[: len(chunk)]
            if cast_bias is None:
                torch.mm(chunk, cast_weight.T, out=logits)
            else:
                torch.addmm(cast_bias, chunk, cast_weight.T, out=logits)
            buffer = logits if dtype == sweep.dtype else sweep.buffer(0, len(chunk))
            gradient = sweep(logits, span, buffer, sweep.buffer(1, len(chunk)) if any(needs_gradient) else None)
            if bias_gradient is not None:
                bias_gradient += gradient.sum(0, dtype=torch.promote_types(gradient.dtype, bias_gradient.dtype))
            gradient = gradient.to(dtype)
            if inputs_gradient is not None:
                inputs_gradient[span] = gradient @ cast_weight
            if weight_gradient is not None and weight_gradient.dtype == dtype:
                weight_gradient.addmm_(gradient.T, chunk)
            elif weight_gradient is not None:
                weight_gradient += gradient.T @ chunk
        ctx.save_for_backward(inputs_gradient, weight_gradient, bias_gradient, sweep.unit)
        losses = sweep.losses()
        ctx.mark_non_differentiable(*losses[1:])
        return losses

    @staticmethod
    def backward(ctx: Any, outer: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, unit = ctx.saved_tensors
        return *(None if g is None else _scaled(g, outer * unit) for g in gradients), *(None,) * 7


def _sweep_chunks(sweep: Sweep, logits: Tensor, gradient: Tensor | None, rows: int) -> None:
    for start in range(0, len(logits), rows):
        span = slice(start, start + rows)
        chunk = logits[span]
        buffer = sweep.buffer(0, len(chunk))
        if gradient is None:
            sweep(chunk, span, buffer, None)
        elif gradient.dtype == sweep.dtype:
            sweep(chunk, span, buffer, gradient[span])
        else:
            gradient[span] = sweep(chunk, span, buffer, sweep.buffer(1, len(chunk)))


def _empty_like(values: Tensor) -> Tensor:
    """Return a new tensor, in large pages on Linux, which the system clears several times as fast as small ones.

    The C library maps a block of this size on its own, so that nothing else is in these pages.
    """
    new = torch.empty_like(values)
    if new.is_cpu and new.nbytes >= MAPPED_BYTES and sys.platform == "linux" and not torch.compiler.is_compiling():
        first, last = -(-new.data_ptr() // LARGE_PAGE), (new.data_ptr() + new.nbytes) // LARGE_PAGE
        address, size = ctypes.c_void_p(first * LARGE_PAGE), ctypes.c_size_t((last - first) * LARGE_PAGE)
        ctypes.CDLL(None).madvise(address, size, MADV_HUGEPAGE)  # advice: where it fails, pages are small
    return new


def _chunk_rows(shape: torch.Size, device: torch.device) -> int:
    """Return the frames per chunk: on a CPU few enough for its caches, on a GPU a sixteenth of all; all chunks have
    about the same size."""
    frames, classes = shape
    if device.type == "cpu":
        limit = max(1, CPU_CHUNK * torch.get_num_threads() // classes)
    else:
        limit = max(1, GPU_CHUNK // classes, -(-frames // 16))
    return max(1, -(-frames // max(1, -(-frames // limit))))


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """Return gradient · factor, computed in place; torch itself refuses a second use after that."""
    _refuse_second_derivative()
    if factor.device.type == "cpu" and factor.item() == 1:
        return gradient
    return gradient.mul_(factor)


def _refuse_second_derivative() -> None:
    if torch.is_grad_enabled():  # create_graph=True
        raise RuntimeError("the lean loss can be differentiated only once: use frame_kd_loss(…, lean=False)")
