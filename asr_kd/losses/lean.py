"""The loss for large output layers: forward and gradient in one sweep over chunks of frames."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from asr_kd.losses.targets import CompactTargets, Dense, Targets

CPU_CHUNK = 1 << 17  # logits a thread and chunk
GPU_CHUNK = 1 << 22  # logits a chunk, at least


class LeanLoss(torch.autograd.Function):
    """Loss and gradient in one sweep over chunks of frames: keeps the gradient, nothing else of the logits' size."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Targets, labels: Tensor | None, share: Tensor,
        temperature: float, hard_weight: float, wanted: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        rows = _chunk_rows(logits.shape, logits.device)
        sweep = _Sweep(targets, labels, share, temperature, hard_weight, logits.dtype, rows, logits.shape[-1])
        gradient = torch.empty_like(logits) if wanted else None
        for start in range(0, len(logits), rows):
            part = slice(start, start + rows)
            if gradient is None:
                sweep(logits[part], part, None)
            elif gradient.dtype == sweep.dtype:
                sweep(logits[part], part, gradient[part])
            else:
                gradient[part] = sweep(logits[part], part, sweep.buffer(len(logits[part])))
        ctx.save_for_backward(gradient, sweep.unit)
        losses = sweep.losses()
        ctx.mark_non_differentiable(*losses[1:])
        return losses

    @staticmethod
    def backward(ctx: Any, outer: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        gradient, unit = ctx.saved_tensors
        return _scaled(gradient, outer * unit), *(None,) * 6


class LeanLinearLoss(torch.autograd.Function):
    """The output layer and the loss: only a chunk of the logits exists at a time."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, targets: Targets, labels: Tensor | None,
        share: Tensor, temperature: float, hard_weight: float, wanted: tuple[bool, bool, bool], rows: int,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        classes = len(weight)
        dtype = inputs.dtype
        if torch.is_autocast_enabled(inputs.device.type):
            dtype = torch.get_autocast_dtype(inputs.device.type)
        narrow_weight = weight.to(dtype)
        narrow_bias = None if bias is None else bias.to(dtype)
        sweep = _Sweep(targets, labels, share, temperature, hard_weight, dtype, rows, classes)
        of_inputs = torch.empty_like(inputs) if wanted[0] else None
        of_weight = torch.zeros_like(weight) if wanted[1] else None
        of_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
        for start in range(0, len(inputs), rows):
            part = slice(start, start + rows)
            chunk = inputs[part].to(dtype)
            logits = F.linear(chunk, narrow_weight, narrow_bias)
            gradient = sweep(logits, part, sweep.buffer(len(chunk)) if any(wanted) else None)
            if of_bias is not None:
                of_bias += gradient.sum(0)
            gradient = gradient.to(dtype)
            if of_inputs is not None:
                of_inputs[part] = gradient @ narrow_weight
            if of_weight is not None and of_weight.dtype == dtype:
                of_weight.addmm_(gradient.T, chunk)
            elif of_weight is not None:
                of_weight += gradient.T @ chunk
        ctx.save_for_backward(of_inputs, of_weight, of_bias, sweep.unit)
        losses = sweep.losses()
        ctx.mark_non_differentiable(*losses[1:])
        return losses

    @staticmethod
    def backward(ctx: Any, outer: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        *gradients, unit = ctx.saved_tensors
        return *(None if g is None else _scaled(g, outer * unit) for g in gradients), *(None,) * 7


class _CompactRows:
    """A chunk of compact soft targets against x = logits − their maximum (n, C).

    Attributes:
        mass: (n,) Σ q.
        dot: (n,) Σ q·x.
        entropy: (n,) −Σ q log q.
    """

    def __init__(self, targets: CompactTargets, part: slice, x: Tensor, temperature: float) -> None:
        classes, probabilities = targets.classes[part].long(), targets.probabilities[part]
        rows = CompactTargets(classes, probabilities, targets.tail, targets.prior)
        self.classes, self.tail, self.parts = classes, targets.tail, rows.parts(x.shape[1], x.dtype)
        kept, tail, share, base, change = self.parts
        self.mass = kept.sum(1) + tail
        self.entropy = rows.entropy(self.parts)
        self.dot = (change * x.gather(1, classes)).sum(1)
        if self.tail == "bucket":
            self.dot += self._bucket(x, temperature)
        elif self.tail != "none":
            self.dot += share * (x.sum(1) if targets.prior is None else x @ base)

    def _bucket(self, x: Tensor, temperature: float) -> Tensor:
        """The bucket's share of the dot product, as one class of logit T · log Σ e^(x/T) over the tail; keeps
        e^(x/T) of the tail's classes, scaled, for the gradient."""
        kept, tail = self.parts.kept, self.parts.tail
        # What a frame keeps none of, its padding, points to the likeliest class that it keeps.
        first = self.classes.gather(1, kept.argmax(1, keepdim=True))
        others = x.scatter(1, torch.where(kept > 0, self.classes, first), -torch.inf)
        peak = others.amax(1, keepdim=True)
        peak = torch.where(peak > -torch.inf, peak, 0.0)  # every class is kept
        self.others = others.sub_(peak).mul_(1 / temperature).exp_()
        total = self.others.sum(1)
        self.weight = torch.where(tail > 0, tail / total, 0.0)
        return torch.where(tail > 0, tail * (peak.squeeze(1) + temperature * total.log()), 0.0)

    def subtract(self, out: Tensor, scale: Tensor) -> None:
        """out −= scale · q, with scale (n,)."""
        factor = scale * self.parts.share
        if self.tail == "prior":
            out.addr_(factor, self.parts.base, alpha=-1)
        elif self.tail == "even":
            out.sub_(factor.unsqueeze(1))
        elif self.tail == "bucket":  # the tail's mass goes where the student has it
            out.sub_(self.others.mul_((scale * self.weight).unsqueeze(1)))
        out.scatter_add_(1, self.classes, -scale.unsqueeze(1) * self.parts.change)


class _DenseRows:
    """As ``_CompactRows``, of dense probabilities or teacher logits."""

    def __init__(self, targets: Dense, part: slice, x: Tensor, temperature: float) -> None:
        self.q = Dense(targets.values[part], targets.kind).probabilities(temperature, x.dtype)
        self.mass = self.q.sum(1)
        self.dot = torch.bmm(self.q.unsqueeze(1), x.unsqueeze(2)).view(-1)
        self.entropy = torch.special.entr(self.q).sum(1)

    def subtract(self, out: Tensor, scale: Tensor) -> None:
        out.sub_(self.q.mul(scale.unsqueeze(1)))


class _Sweep:
    """Losses and gradient of chunks of frames, with buffers that are used again.

    Args:
        targets, labels, share, temperature, hard_weight: of all frames, checked.
        dtype: of the logits.
        rows: frames a chunk, at most.
        classes: C.
    """

    def __init__(
        self, targets: Targets, labels: Tensor | None, share: Tensor, temperature: float, hard_weight: float,
        dtype: torch.dtype, rows: int, classes: int,
    ) -> None:  # fmt: skip
        self.targets, self.labels, self.temperature = targets, labels, temperature
        self.hard_weight = 0.0 if labels is None else hard_weight
        self.dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self.share = share
        # Gradients in float16 are kept per frame, and divided by the number of frames on the way back, after
        # whatever scale the caller applies against underflow.
        self.unit = share.new_ones(())
        if dtype == torch.float16 and len(share):
            self.unit = torch.where(share.max() > 0, share.max(), self.unit)
        self.scratch = torch.empty(rows, classes, dtype=self.dtype, device=share.device)
        self.second: Tensor | None = None
        self.sums = torch.zeros(3, dtype=torch.float64, device=share.device)

    def buffer(self, rows: int) -> Tensor:
        """(rows, C) for a gradient."""
        if self.second is None:
            self.second = torch.empty_like(self.scratch)
        return self.second[:rows]

    def losses(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        cross_entropy, hard, _ = self.sums.to(self.dtype).unbind()
        soft = self.temperature**2 * cross_entropy
        kl = (self.sums[0] - self.sums[2]).to(self.dtype)  # in float64: their difference may be small
        return (1 - self.hard_weight) * soft + self.hard_weight * hard, soft, hard, kl

    def _add(self, which: int, share: Tensor, values: Tensor) -> None:
        self.sums[which] += torch.where(share > 0, values, 0.0).double() @ share.double()

    def __call__(self, logits: Tensor, part: slice, out: Tensor | None) -> Tensor:
        """Add a chunk's losses; its gradient (n, C) goes to ``out`` (returned) unless that is None."""
        share = self.share[part].to(self.dtype)
        labels = None if self.labels is None else self.labels[part].clamp(min=0).unsqueeze(1)
        temperature = self.temperature
        peak = logits.amax(1, keepdim=True).to(self.dtype)
        x = torch.sub(logits, peak, out=self.scratch[: len(logits)])
        soft = (
            _CompactRows(self.targets, part, x, temperature)
            if isinstance(self.targets, CompactTargets)
            else _DenseRows(self.targets, part, x, temperature)
        )
        hard_x = None if labels is None else x.gather(1, labels).squeeze(1)
        hard_sum = None
        apart = labels is not None and temperature not in (1, 2)  # a second exponential for the hard part
        if apart:
            out = self.buffer(len(x)) if out is None else out
            hard_sum = torch.exp(x, out=out).sum(1)
        if temperature != 1:
            x.mul_(1 / temperature)
        total = x.exp_().sum(1)
        if labels is not None and not apart:
            hard_sum = total if temperature == 1 else torch.linalg.vector_norm(x, dim=1).square()
        self._add(0, share, soft.mass * total.log() - soft.dot / temperature)
        self._add(2, share, soft.entropy)
        if hard_sum is not None and hard_x is not None:
            self._add(1, share, hard_sum.log() - hard_x)
        if out is None:
            return x
        scale = share / self.unit.to(self.dtype)
        soft_scale, hard_scale = (1 - self.hard_weight) * temperature * scale, self.hard_weight * scale
        soft_rate = (soft_scale * soft.mass / total).unsqueeze(1)
        hard_rate = None if hard_sum is None else (hard_scale / hard_sum).unsqueeze(1)
        self._softmax_parts(x, soft_rate, hard_rate, out)
        soft.subtract(out, soft_scale)
        if labels is not None:
            out.scatter_add_(1, labels, -hard_scale.unsqueeze(1))
        nothing = share == 0
        if out.is_cuda or bool(nothing.any()):  # padding may hold NaN
            out.masked_fill_(nothing.unsqueeze(1), 0)
        return out

    def _softmax_parts(self, x: Tensor, soft_rate: Tensor, hard_rate: Tensor | None, out: Tensor) -> None:
        """out = soft_rate · e^{x/T} + hard_rate · e^x; ``x`` holds e^{x/T}, and ``out`` e^x where it is not a power."""
        if hard_rate is None:
            torch.mul(x, soft_rate, out=out)
        elif self.temperature == 1:
            torch.mul(x, soft_rate + hard_rate, out=out)
        elif self.temperature == 2:  # e^x is the square of e^{x/2}
            torch.mul(x, hard_rate, out=out).add_(soft_rate).mul_(x)
        else:
            out.mul_(hard_rate).add_(x.mul_(soft_rate))


def _chunk_rows(shape: torch.Size, device: torch.device) -> int:
    """Frames a chunk: on a CPU few enough for its caches, on a GPU a sixteenth of all."""
    frames, classes = shape
    if device.type == "cpu":
        return max(1, CPU_CHUNK * torch.get_num_threads() // classes)
    return max(1, GPU_CHUNK // classes, -(-frames // 16))


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """gradient · factor, without a copy; torch refuses a second use after that by itself."""
    if torch.is_grad_enabled():  # create_graph=True
        raise RuntimeError("the lean loss can be differentiated only once: use frame_kd_loss(…, lean=False)")
    if factor.device.type == "cpu" and factor.item() == 1:
        return gradient
    return gradient.mul_(factor)
