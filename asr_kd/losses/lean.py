"""The loss for large output layers: forward and gradient in one sweep over chunks of frames."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from asr_kd.losses.frames import Frames, add_parts
from asr_kd.losses.targets import CompactTargets, Dense, Targets, product

CPU_CHUNK = 1 << 19  # logits a thread and chunk
GPU_CHUNK = 1 << 22  # logits a chunk, at least


class LeanLoss(torch.autograd.Function):
    """Loss and gradient in one sweep over chunks of frames: keeps the gradient, nothing else of the logits' size."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, targets: Targets, labels: Tensor | None, frames: Frames,
        temperature: float, hard_weight: float, wanted: bool,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        rows = _chunk_rows(logits.shape, logits.device)
        sweep = _Sweep(targets, labels, frames, temperature, hard_weight, logits.dtype, rows, logits.shape[-1])
        gradient = torch.empty_like(logits) if wanted else None
        for start in range(0, len(logits), rows):
            part = slice(start, start + rows)
            chunk = logits[part]
            room = sweep.room(0, len(chunk))
            if gradient is None:
                sweep(chunk, part, room, None)
            elif gradient.dtype == sweep.dtype:
                sweep(chunk, part, room, gradient[part])
            else:
                gradient[part] = sweep(chunk, part, room, sweep.room(1, len(chunk)))
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
        frames: Frames, temperature: float, hard_weight: float, wanted: tuple[bool, bool, bool], rows: int,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        classes = len(weight)
        dtype = inputs.dtype
        if torch.is_autocast_enabled(inputs.device.type):
            dtype = torch.get_autocast_dtype(inputs.device.type)
        narrow_weight = weight.to(dtype)
        narrow_bias = None if bias is None else bias.to(dtype)
        sweep = _Sweep(targets, labels, frames, temperature, hard_weight, dtype, rows, classes)
        of_inputs = torch.empty_like(inputs) if wanted[0] else None
        of_weight = torch.zeros_like(weight) if wanted[1] else None
        of_bias = torch.zeros_like(bias) if bias is not None and wanted[2] else None
        products = inputs.new_empty(min(rows, len(inputs)), classes, dtype=dtype)
        for start in range(0, len(inputs), rows):
            part = slice(start, start + rows)
            chunk = inputs[part].to(dtype)
            logits = products[: len(chunk)]
            if narrow_bias is None:
                torch.mm(chunk, narrow_weight.T, out=logits)
            else:
                torch.addmm(narrow_bias, chunk, narrow_weight.T, out=logits)
            room = logits if dtype == sweep.dtype else sweep.room(0, len(chunk))
            gradient = sweep(logits, part, room, sweep.room(1, len(chunk)) if any(wanted) else None)
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
    """Compact soft targets q of all frames.

    Attributes:
        mass: (N,) Σ q.
        dot: (N,) Σ q·y, y being the exponents that ``_Sweep`` works with; complete after ``finish``.
        entropy: (N,) −Σ q log q.
    """

    def __init__(self, targets: CompactTargets, num_classes: int, dtype: torch.dtype) -> None:
        self.targets = targets
        self.classes = targets.classes.long()
        self.parts = targets.parts(num_classes, dtype)
        self.mass = self.parts.kept.sum(1) + self.parts.tail
        self.entropy = targets.entropy(self.parts)
        self.dot = torch.zeros_like(self.mass)  # of the tail, and in the end of all
        self.values = torch.empty_like(self.parts.kept)  # y of the classes that are kept
        self.change: Tensor | None = None

    def read(self, part: slice, y: Tensor) -> None:
        """Take what ``dot`` needs of a chunk's y (n, C)."""
        torch.gather(y, 1, self.classes[part], out=self.values[part])
        if self.targets.tail == "bucket":
            self.dot[part] = self._bucket(part, y)
        elif self.targets.tail == "even":
            torch.sum(y, 1, out=self.dot[part])
        elif self.targets.tail == "prior":
            torch.mv(y, self.parts.base, out=self.dot[part])

    def finish(self) -> None:
        if self.targets.tail != "bucket":
            self.dot = product(self.parts.share, self.dot)
        self.dot += product(self.parts.change, self.values).sum(1)

    def _bucket(self, part: slice, y: Tensor) -> Tensor:
        """The bucket's share of the dot product, as one class of exponent log₂ Σ 2^y over the tail; keeps 2^y of the
        tail's classes, scaled, for the gradient."""
        kept, tail, classes = self.parts.kept[part], self.parts.tail[part], self.classes[part]
        # What a frame keeps none of, its padding, points to the likeliest class that it keeps.
        first = classes.gather(1, kept.argmax(1, keepdim=True))
        others = y.scatter(1, torch.where(kept > 0, classes, first), -torch.inf)
        peak = others.amax(1, keepdim=True)
        peak = torch.where(peak > -torch.inf, peak, 0.0)  # every class is kept
        self.others = others.sub_(peak).exp2_()
        total = self.others.sum(1)
        self.weight = torch.where(tail > 0, tail / total, 0.0)
        return torch.where(tail > 0, tail * (peak.squeeze(1) + total.log2()), 0.0)

    def subtract(self, part: slice, out: Tensor, scale: Tensor) -> None:
        """out −= scale · q of a chunk, with scale (N,) of all frames."""
        if self.change is None:
            self.change, self.share = self.parts.change * -scale.unsqueeze(1), scale * self.parts.share
        if self.targets.tail == "prior":
            out.addr_(self.share[part], self.parts.base, alpha=-1)
        elif self.targets.tail == "even":
            out.sub_(self.share[part].unsqueeze(1))
        elif self.targets.tail == "bucket":  # the tail's mass goes where the student has it
            out.sub_(self.others.mul_((scale[part] * self.weight).unsqueeze(1)))
        out.scatter_add_(1, self.classes[part], self.change[part])


class _DenseRows:
    """As ``_CompactRows``, of dense probabilities or teacher logits."""

    def __init__(self, targets: Dense, temperature: float, dtype: torch.dtype) -> None:
        self.targets, self.temperature, self.dtype = targets, temperature, dtype
        frames = targets.values[:, 0]
        self.mass, self.dot, self.entropy = (torch.ones_like(frames, dtype=dtype) for _ in range(3))

    def read(self, part: slice, y: Tensor) -> None:
        values = self.targets.values[part].to(self.dtype)
        if self.targets.kind == "logits":
            logs = _exponents(values, self.temperature, torch.empty_like(y))
            # Probabilities of zero, whose logarithm would make NaN of the products below.
            q = torch.exp2(logs.clamp_(min=-2000))
            total = q.sum(1, keepdim=True)
            q.div_(total)
            self.entropy[part] = math.log(2) * (total.log2().squeeze(1) - torch.linalg.vecdot(q, logs))
        else:
            q = values
            logs = q.clamp(min=torch.finfo(q.dtype).tiny).log2_()
            torch.sum(q, 1, out=self.mass[part])
            self.entropy[part] = -math.log(2) * torch.linalg.vecdot(q, logs)
        self.q, self.spare = q, logs
        # Classes with a logit of −inf cost nothing where they have no share, and else still more than any other.
        lowest = torch.finfo(y.dtype).min
        self.dot[part] = torch.clamp(y, min=lowest, out=logs).mul_(q).sum(1)

    def finish(self) -> None:
        pass

    def subtract(self, part: slice, out: Tensor, scale: Tensor) -> None:
        out.sub_(torch.mul(self.q, scale[part].unsqueeze(1), out=self.spare))


def _exponents(logits: Tensor, temperature: float, out: Tensor) -> Tensor:
    """y = log₂(e) / T · (logits − their maximum), so that 2^y is e^(logits / T), at most 1.

    On a CPU torch computes 2^y several times as fast as e^y.
    """
    scale = 1 / (temperature * math.log(2))
    return torch.add(logits.amax(1, keepdim=True).mul_(-scale), logits, alpha=scale, out=out)


class _Sweep:
    """Losses and gradient of chunks of frames.

    What does not need the logits is done for all frames at once, before and after: a chunk is small, and every
    operation on it costs as much in calling as in computing.

    Args:
        targets, labels, frames, temperature, hard_weight: of all frames, checked.
        dtype: of the logits.
        rows: frames a chunk, at most.
        classes: C.
    """

    def __init__(
        self, targets: Targets, labels: Tensor | None, frames: Frames, temperature: float, hard_weight: float,
        dtype: torch.dtype, rows: int, classes: int,
    ) -> None:  # fmt: skip
        self.temperature, self.hard_weight = temperature, 0.0 if labels is None else hard_weight
        self.dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self.frames, self.share = frames, frames.share.to(self.dtype)
        # Gradients in float16 are kept per frame, and divided by the number of frames on the way back, after
        # whatever scale the caller applies against underflow.
        self.unit, scale = frames.share.new_ones(()), self.share
        if dtype == torch.float16 and len(self.share):
            largest = frames.share.max()
            self.unit = torch.where(largest > 0, largest, self.unit)
            scale = self.share / self.unit.to(self.dtype)
        self.soft = (
            _CompactRows(targets, classes, self.dtype)
            if isinstance(targets, CompactTargets)
            else _DenseRows(targets, temperature, self.dtype)
        )
        self.soft_scale, self.hard_scale = (1 - self.hard_weight) * temperature * scale, self.hard_weight * scale
        if frames.labelled is not None:
            self.soft_scale = torch.where(frames.labelled, self.soft_scale, temperature * scale)
            self.hard_scale = torch.where(frames.labelled, self.hard_scale, 0.0)
        self.labels = None if labels is None else labels.clamp(min=0).unsqueeze(1)
        # Σ 2^y, which is Σ e^(logits / T) of logits less their maximum; the same at T = 1; and y of the labels.
        self.total, self.hard_total, self.label_y = (torch.ones_like(self.share) for _ in range(3))
        self.rooms: dict[int, Tensor] = {}
        self.size = (rows, classes)
        self.nothing = frames.share == 0  # padding may hold NaN
        self.padded = self.share.is_cuda or bool(self.nothing.any())

    def room(self, number: int, rows: int) -> Tensor:
        """(rows, C) to work in, the same for every chunk."""
        if number not in self.rooms:
            self.rooms[number] = self.share.new_empty(self.size)
        return self.rooms[number][:rows]

    def losses(self) -> tuple[Tensor, ...]:
        """Total, soft, hard and KL, after the last chunk."""
        self.soft.finish()
        log2 = math.log(2)
        cross_entropy = self.soft.mass * self.total.log() - log2 * self.soft.dot
        hard = self.hard_total.log() - log2 * self.temperature * self.label_y
        values = torch.stack([cross_entropy, self.soft.entropy, hard])
        if self.padded:
            values.masked_fill_(self.nothing, 0)
        share, labelled = self.share.double(), self.frames.labelled
        if labelled is not None:
            values[2].masked_fill_(~labelled, 0)
        means = values.double() @ share  # in float64: the difference of the first two may be small
        soft, kl = self.temperature**2 * means[0], means[0] - means[1]
        if labelled is None:
            return torch.stack([soft, soft, torch.zeros_like(soft), kl]).to(self.dtype).unbind()
        unlabelled_soft = self.temperature**2 * (values[0].masked_fill_(labelled, 0).double() @ share)
        total = add_parts(soft, means[2] + unlabelled_soft, self.hard_weight)
        return torch.stack([total, soft, self.frames.mean_of_labelled(means[2]), kl]).to(self.dtype).unbind()

    def __call__(self, logits: Tensor, part: slice, room: Tensor, out: Tensor | None) -> Tensor:
        """Add a chunk's losses.

        Args:
            logits: (n, C).
            part: their place among all frames.
            room: (n, C) in ``dtype`` to work in; may be the logits themselves.
            out: (n, C) for the gradient, returned; None: there will be none.
        """
        if logits.dtype != self.dtype:
            logits = room.copy_(logits)
        y = _exponents(logits, self.temperature, room)
        self.soft.read(part, y)
        hard = self._read_labels(part, y, out)
        e = y.exp2_()
        torch.sum(e, 1, out=self.total[part])
        self._read_hard(part, e, hard)
        if out is None:
            return e
        soft_rate = (self.soft_scale[part] * self.soft.mass[part] / self.total[part]).unsqueeze(1)
        hard_rate = (self.hard_scale[part] / self.hard_total[part]).unsqueeze(1)
        if self.labels is None:
            torch.mul(e, soft_rate, out=out)
        elif self.temperature == 1:
            torch.mul(e, soft_rate + hard_rate, out=out)
        elif self.temperature == 2:
            torch.mul(e, hard_rate, out=out).add_(soft_rate).mul_(e)
        else:
            out.mul_(hard_rate).add_(e.mul_(soft_rate))
        self.soft.subtract(part, out, self.soft_scale)
        if self.labels is not None:
            out.scatter_add_(1, self.labels[part], -self.hard_scale[part].unsqueeze(1))
        if self.padded:
            out.masked_fill_(self.nothing[part].unsqueeze(1), 0)
        return out

    def _read_labels(self, part: slice, y: Tensor, out: Tensor | None) -> Tensor | None:
        """Take what the hard part needs of y; returns e^logits, in ``out``, where 2^y will not tell it."""
        if self.labels is None:
            return None
        torch.gather(y, 1, self.labels[part], out=self.label_y[part].unsqueeze(1))
        return None if self.temperature in (1, 2) else torch.mul(y, self.temperature, out=out).exp2_()

    def _read_hard(self, part: slice, e: Tensor, hard: Tensor | None) -> None:
        """Σ e^logits, from what ``_read_labels`` returned or from e^(logits / T)."""
        if hard is not None:
            torch.sum(hard, 1, out=self.hard_total[part])
        elif self.labels is not None and self.temperature == 1:
            self.hard_total[part] = self.total[part]
        elif self.labels is not None:
            self.hard_total[part] = torch.linalg.vector_norm(e, dim=1).square_()


def _chunk_rows(shape: torch.Size, device: torch.device) -> int:
    """Frames a chunk: on a CPU few enough for its caches, on a GPU a sixteenth of all; about the same in each."""
    frames, classes = shape
    if device.type == "cpu":
        most = max(1, CPU_CHUNK * torch.get_num_threads() // classes)
    else:
        most = max(1, GPU_CHUNK // classes, -(-frames // 16))
    return max(1, -(-frames // max(1, -(-frames // most))))


def _scaled(gradient: Tensor, factor: Tensor) -> Tensor:
    """gradient · factor, without a copy; torch refuses a second use after that by itself."""
    if torch.is_grad_enabled():  # create_graph=True
        raise RuntimeError("the lean loss can be differentiated only once: use frame_kd_loss(…, lean=False)")
    if factor.device.type == "cpu" and factor.item() == 1:
        return gradient
    return gradient.mul_(factor)
