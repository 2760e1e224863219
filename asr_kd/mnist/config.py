"""Flags of ``python -m asr_kd.mnist``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.settings import Count, Dropout, NotNegative, Positive, Seed, Settings, Share, within
from asr_kd.common.storage import RUN_ONLY, Stage


@dataclass
class Config(Settings):
    """Train one network on MNIST, with labels or with the soft targets of other networks."""

    data: Path
    """Folder with MNIST's four files (written by asr_kd.mnist.digits)."""
    out: Path
    """Folder of the network."""
    seed: Seed = 0
    """Seed for initial weights, order of images, shifts, distortions and dropout."""
    layers: Count = 2
    """Hidden layers of ReLUs."""
    width: Count = 800
    """Units per hidden layer."""
    epochs: Count = 30
    """Passes over the training images."""
    batch_size: Count = 256
    """Images per batch."""
    learning_rate: Positive = 1e-3
    """Peak learning rate of the one-cycle schedule (AdamW)."""
    weight_decay: NotNegative = 0.0
    """Decoupled weight decay of AdamW."""
    dropout: Dropout = 0.0
    """Dropout rate of hidden units."""
    input_dropout: Dropout = 0.0
    """Dropout rate of pixels."""
    max_norm: NotNegative = 0.0
    """Maximum norm of each hidden unit's incoming weights; 0: no limit."""
    jitter: Annotated[int, within(0, 28)] = 0
    """Largest random shift of a training image along each axis, in pixels; drawn again in each epoch."""
    bend: Annotated[float, within(0, below=28)] = 0.0
    """Elastic distortion of training images: standard deviation of the displacement at 4×4 points, in pixels; drawn
    again in each epoch."""
    held_out: Annotated[int, within(0, 59_999)] = 0
    """Number of training images, taken from the end, that are held out for validation."""
    digits: Annotated[tuple[int, ...], within(0, 9, filled=True)] = tuple(range(10))
    """Digits that occur in the training images (with --teachers: in the transfer set)."""
    teachers: tuple[Path, ...] = ()
    """Folders of the networks whose averaged soft targets are learnt; none: train with labels only."""
    temperature: Annotated[float, within(above=0, infinite=True)] = 20.0
    """Temperature T of the soft targets; inf: match the teachers' logits."""
    hard_weight: Share = 0.1
    """Weight of the labels when there are soft targets; 0: the transfer set needs no labels."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of matrix products (weights stay float32); auto: bfloat16 if it is measured to be at
    least 1.2 times as fast here."""
    device: str = field(default="auto", metadata=RUN_ONLY)
    """cpu, cuda, or auto."""

    def stage(self) -> Stage:
        """Return the completion mark of the network.

        Raises:
            UserError: a teacher is missing or unfinished.
        """
        return Stage("mnist", self.out, self, self.teachers)
