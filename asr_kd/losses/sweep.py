"""Losses and gradient of chunks of frames, from which the lean losses are made."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from asr_kd.losses.frames import Frames, add_parts
from asr_kd.losses.targets import CompactTargets, Dense, Targets, masked_product


class CompactRows:
    """Compact soft targets q of all frames.

    Attributes:
        mass: (N,) Σ q.
        dot: (N,) Σ q·y, where y are the exponents that ``Sweep`` works with; complete after ``finish``.
        entropy: (N,) −Σ q log q.
    """

    def __init__(self, targets: CompactTargets, num_classes: int, dtype: torch.dtype) -> None:
        self.targets = targets
        self.classes = targets.classes.long()
        self.parts = targets.parts(num_classes, dtype)
        self.mass = self.parts.kept.sum(1) + self.parts.tail
        self.entropy = targets.entropy(self.parts)
        self.dot = torch.zeros_like(self.mass)  # of the tail until ``finish``, then of all classes
        # y of the kept classes
        self.values = torch.empty_like(self.parts.kept, memory_format=torch.contiguous_format)
        self.scaled: tuple[Tensor, Tensor] | None = None

    def read(self, span: slice, y: Tensor) -> None:
        """Read what ``dot`` needs from the y (n, C) of a chunk."""
        torch.gather(y, 1, self.classes[span], out=self.values[span])
        if self.targets.tail == "bucket":
            self.dot[span] = self._bucket(span, y)
        elif self.targets.tail == "even":
            torch.sum(y, 1, out=self.dot[span])
        elif self.targets.tail == "prior":
            torch.mv(y, self.parts.base, out=self.dot[span])

    def finish(self) -> None:
        if self.targets.tail != "bucket":
            self.dot = masked_product(self.parts.share, self.dot)
        self.dot += masked_product(self.parts.change, self.values).sum(1)

    def _bucket(self, span: slice, y: Tensor) -> Tensor:
        """Return the bucket's term of the dot product: a class of exponent log₂ Σ 2^y over the tail.

        Keeps 2^y of the classes in the tail, scaled, for the gradient.
        """
        kept, tail, classes = self.parts.kept[span], self.parts.tail[span], self.classes[span]
        # The unused places of a frame that keeps fewer than k point to its most probable class.
        first = classes.gather(1, kept.argmax(1, keepdim=True))
        others = y.scatter(1, torch.where(kept > 0, classes, first), -torch.inf)
        peak = others.amax(1, keepdim=True)
        peak = torch.where(peak > -torch.inf, peak, 0.0)  # if every class is kept
        self.others = others.sub_(peak).exp2_()
        total = self.others.sum(1)
        self.weight = torch.where(tail > 0, tail / total, 0.0)
        return torch.where(tail > 0, tail * (peak.squeeze(1) + total.log2()), 0.0)

    def scale(self, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return −``change`` and ``share`` times the scale (N,) of all frames, which must be the same in every call."""
        if self.scaled is None:
            self.scaled = self.parts.change * -scale.unsqueeze(1), scale * self.parts.share
        return self.scaled

    def subtract(self, span: slice, out: Tensor, scale: Tensor) -> None:
        """Compute out −= scale · q for a chunk, with scale (N,) of all frames."""
        change, share = self.scale(scale)
        if self.targets.tail == "prior":
            out.addr_(share[span], self.parts.base, alpha=-1)
        elif self.targets.tail == "even":
            out.sub_(share[span].unsqueeze(1))
        elif self.targets.tail == "bucket":  # the student decides how the mass of the tail is spread
            out.sub_(self.others.mul_((scale[span] * self.weight).unsqueeze(1)))
        out.scatter_add_(1, self.classes[span], change[span])


class DenseRows:
    """Dense probabilities or teacher logits of all frames, with the attributes of ``CompactRows``."""

    def __init__(self, targets: Dense, temperature: float, dtype: torch.dtype) -> None:
        self.targets, self.temperature, self.dtype = targets, temperature, dtype
        frames = targets.values[:, 0]
        self.mass, self.dot, self.entropy = (torch.ones_like(frames, dtype=dtype) for _ in range(3))

    def read(self, span: slice, y: Tensor) -> None:
        values = self.targets.values[span].to(self.dtype)
        if self.targets.kind == "logits":
            logs = exponents(values, self.temperature, torch.empty_like(y))
            # The logarithm of a probability of zero would turn the products below into NaN.
            q = torch.exp2(logs.clamp_(min=-2000))
            total = q.sum(1, keepdim=True)
            q.div_(total)
            self.entropy[span] = math.log(2) * (total.log2().squeeze(1) - torch.linalg.vecdot(q, logs))
        else:
            q = values
            logs = q.clamp(min=torch.finfo(q.dtype).tiny).log2_()
            torch.sum(q, 1, out=self.mass[span])
            self.entropy[span] = -math.log(2) * torch.linalg.vecdot(q, logs)
        self.q, self.spare = q, logs
        # A class with a logit of −inf costs nothing if its target is zero, and else more than any other class.
        lowest = torch.finfo(y.dtype).min
        self.dot[span] = torch.clamp(y, min=lowest, out=logs).mul_(q).sum(1)

    def finish(self) -> None:
        pass

    def subtract(self, span: slice, out: Tensor, scale: Tensor) -> None:
        out.sub_(torch.mul(self.q, scale[span].unsqueeze(1), out=self.spare))


def exponents(logits: Tensor, temperature: float, out: Tensor) -> Tensor:
    """Return y = log₂(e) / T · (logits − their maximum), so that 2^y is proportional to e^(logits / T) and at most 1.

    On a CPU torch computes 2^y several times as fast as e^y.
    """
    scale = 1 / (temperature * math.log(2))
    return torch.add(logits.amax(1, keepdim=True).mul_(-scale), logits, alpha=scale, out=out)


class Sweep:
    """Losses and gradient, chunk by chunk.

    Whatever does not need the logits is computed for all frames at once, before or after the sweep: a chunk is so small
    that calling an operation costs as much as its arithmetic.

    Args:
        targets, labels, frames, temperature, hard_weight: validated, of all frames.
        dtype: of the logits.
        rows: maximum number of frames per chunk.
        classes: C.
        kernel: what computes a chunk in one call, if anything does.
    """

    def __init__(
        self, targets: Targets, labels: Tensor | None, frames: Frames, temperature: float, hard_weight: float,
        dtype: torch.dtype, rows: int, classes: int, kernel: "Kernel | None" = None,
    ) -> None:  # fmt: skip
        self.temperature, self.hard_weight = temperature, 0.0 if labels is None else hard_weight
        self.dtype = torch.float64 if dtype == torch.float64 else torch.float32
        self.frames, self.share = frames, frames.share.to(self.dtype)
        # Gradients in float16 are kept per frame.  ``backward`` divides them by the number of frames after it has
        # applied the loss scale that the caller uses against underflow.
        self.unit, scale = frames.share.new_ones(()), self.share
        if dtype == torch.float16 and len(self.share):
            largest = frames.share.max()
            self.unit = torch.where(largest > 0, largest, self.unit)
            scale = self.share / self.unit.to(self.dtype)
        self.soft = (
            CompactRows(targets, classes, self.dtype)
            if isinstance(targets, CompactTargets)
            else DenseRows(targets, temperature, self.dtype)
        )
        self.soft_scale, self.hard_scale = (1 - self.hard_weight) * temperature * scale, self.hard_weight * scale
        self.unlabelled: Tensor | None = None  # unless no frame is
        if frames.labelled is not None and (scale.is_cuda or not frames.labelled.all()):
            self.unlabelled = ~frames.labelled
            self.soft_scale = torch.where(self.unlabelled, temperature * scale, self.soft_scale)
            self.hard_scale = torch.where(self.unlabelled, 0.0, self.hard_scale)
        self.labels = None if labels is None else labels.clamp(min=0).unsqueeze(1)
        # Σ 2^y, which is Σ e^(logits / T) after their maximum was subtracted; the same at T = 1; and y of the labels.
        self.total, self.hard_total, self.label_y = (torch.ones_like(self.share) for _ in range(3))
        self.buffers: dict[int, Tensor] = {}
        self.size = (rows, classes)
        self.excluded = frames.share == 0  # padding may contain NaN
        self.any_excluded = self.share.is_cuda or bool(self.excluded.any())
        self.kernel = kernel

    def buffer(self, number: int, rows: int) -> Tensor:
        """Return a buffer (rows, C), the same for every chunk."""
        if number not in self.buffers:
            self.buffers[number] = self.share.new_empty(self.size)
        return self.buffers[number][:rows]

    def losses(self) -> tuple[Tensor, ...]:
        """Return total, soft, hard and KL, after the last chunk."""
        self.soft.finish()
        log2 = math.log(2)
        cross_entropy = self.soft.mass * self.total.log() - log2 * self.soft.dot
        hard = self.hard_total.log() - log2 * self.temperature * self.label_y
        values = torch.stack([cross_entropy, self.soft.entropy, hard])
        if self.any_excluded:
            values.masked_fill_(self.excluded, 0)
        if self.unlabelled is not None:
            values[2].masked_fill_(self.unlabelled, 0)
        share = self.share.double()
        means = values.double() @ share  # in float64: the difference of the first two may be small
        soft, kl = self.temperature**2 * means[0], means[0] - means[1]
        hard = means[2] if self.labels is not None else torch.zeros_like(soft)
        total = add_parts(soft, hard, self.hard_weight)
        if self.unlabelled is not None:
            unlabelled_soft = torch.where(self.unlabelled, values[0], 0.0).double() @ share
            total = add_parts(soft, hard + self.temperature**2 * unlabelled_soft, self.hard_weight)
            hard = self.frames.mean_of_labelled(hard)
        return torch.stack([total, soft, hard, kl]).to(self.dtype).unbind()

    def __call__(self, logits: Tensor, span: slice, buffer: Tensor, out: Tensor | None) -> Tensor:
        """Add the losses of a chunk.

        Args:
            logits: (n, C).
            span: which of all frames the chunk has.
            buffer: (n, C) buffer in ``dtype``; may be the logits themselves.
            out: (n, C) for the gradient, which is returned; None: no gradient.
        """
        if self.kernel is not None:
            self.kernel(self, logits, span, out)
            return buffer if out is None else out
        if logits.dtype != self.dtype:
            logits = buffer.copy_(logits)
        y = exponents(logits, self.temperature, buffer)
        self.soft.read(span, y)
        hard = self._read_labels(span, y, out)
        e = y.exp2_()
        torch.sum(e, 1, out=self.total[span])
        self._read_hard(span, e, hard)
        if out is None:
            return e
        soft_rate = (self.soft_scale[span] * self.soft.mass[span] / self.total[span]).unsqueeze(1)
        hard_rate = (self.hard_scale[span] / self.hard_total[span]).unsqueeze(1)
        if self.labels is None:
            torch.mul(e, soft_rate, out=out)
        elif self.temperature == 1:
            torch.mul(e, soft_rate + hard_rate, out=out)
        elif self.temperature == 2:
            torch.mul(e, hard_rate, out=out).add_(soft_rate).mul_(e)
        else:
            out.mul_(hard_rate).add_(e.mul_(soft_rate))
        self.soft.subtract(span, out, self.soft_scale)
        if self.labels is not None:
            out.scatter_add_(1, self.labels[span], -self.hard_scale[span].unsqueeze(1))
        if self.any_excluded:
            out.masked_fill_(self.excluded[span].unsqueeze(1), 0)
        return out

    def _read_labels(self, span: slice, y: Tensor, out: Tensor | None) -> Tensor | None:
        """Read what the hard part needs from y.  Return e^logits, in ``out``, if they do not follow from 2^y."""
        if self.labels is None:
            return None
        torch.gather(y, 1, self.labels[span], out=self.label_y[span].unsqueeze(1))
        return None if self.temperature in (1, 2) else torch.mul(y, self.temperature, out=out).exp2_()

    def _read_hard(self, span: slice, e: Tensor, hard: Tensor | None) -> None:
        """Compute Σ e^logits from the result of ``_read_labels``, or from e^(logits / T)."""
        if hard is not None:
            torch.sum(hard, 1, out=self.hard_total[span])
        elif self.labels is not None and self.temperature == 1:
            self.hard_total[span] = self.total[span]
        elif self.labels is not None:
            self.hard_total[span] = torch.linalg.vector_norm(e, dim=1).square_()


#: Adds the losses of a chunk to a sweep's, and writes its gradient, as ``Sweep.__call__``.
Kernel = Callable[[Sweep, Tensor, slice, Tensor | None], None]
