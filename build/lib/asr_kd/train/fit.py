"""A short training run from beginning to end, and the schedule of the learning rate."""

import math
from collections.abc import Callable, Iterator
from typing import Protocol

from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.train.batches import Batch
from asr_kd.train.step import Step


def one_cycle(done: float, warm: float = 0.1) -> float:
    """Return the factor of the learning rate after a fraction ``done`` of the updates: a linear warm-up over the first
    tenth of them, then a cosine down to zero."""
    factor = done / warm if done < warm else 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm) / (1 - warm))))
    return max(factor, 1e-3)


class Loader(Protocol):
    """Batches of inputs and labels."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield all batches once, in an order that ``seed`` alone decides."""


def fit(
    step: Step, loader: Loader, epochs: int, learning_rate: float, seed: int, title: str,
    after: Callable[[], None] | None = None,
) -> dict[str, float]:  # fmt: skip
    """Train from beginning to end; for runs of minutes (``Trainer`` can be interrupted).

    Args:
        step: makes the updates.
        loader: of the examples.
        learning_rate: peak of the one-cycle schedule.
        seed: of the order of examples and of dropout.
        title: of the progress bar.
        after: is called after each update.

    Returns:
        The number of updates, and the number of examples and the mean loss of the last epoch.
    """
    updates, examples, loss = 0, 0, 0.0
    for epoch in progress(range(epochs), title, unit="epoch"):
        step.model.train()
        step.reseed(1000 * seed + epoch)
        total: Tensor | float = 0.0
        examples = 0
        for batch in loader.epoch(1000 * seed + epoch):
            rate = learning_rate * one_cycle(updates / (epochs * len(loader)))
            total = total + step(batch, rate)["loss"] * len(batch.labels)  # stays on the device
            if after is not None:
                after()
            updates, examples = updates + 1, examples + len(batch.labels)
        loss = float(total) / max(examples, 1)
        if not math.isfinite(loss):
            raise UserError(f"the loss of {title} is not finite in epoch {epoch + 1}: lower the learning rate")
    return {"updates": updates, "examples": examples, "loss": loss}
