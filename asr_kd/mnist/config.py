"""Flags of ``python -m asr_kd.mnist``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asr_kd.common.errors import UserError
from asr_kd.common.storage import RUN_ONLY, Stage


@dataclass
class Config:
    """Train one network on MNIST, with labels or with the soft targets of other networks."""

    data: Path
    """Folder with MNIST's four files (written by asr_kd.mnist.digits)."""
    out: Path
    """Folder of the network."""
    seed: int = 0
    """Seed for initial weights, order of images, shifts, distortions and dropout."""
    layers: int = 2
    """Hidden layers of ReLUs."""
    width: int = 800
    """Units per hidden layer."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 256
    """Images per batch."""
    learning_rate: float = 1e-3
    """Peak learning rate of the one-cycle schedule (AdamW)."""
    weight_decay: float = 0.0
    """Decoupled weight decay of AdamW."""
    dropout: float = 0.0
    """Dropout rate of hidden units."""
    input_dropout: float = 0.0
    """Dropout rate of pixels."""
    max_norm: float = 0.0
    """Maximum norm of each hidden unit's incoming weights; 0: no limit."""
    jitter: int = 0
    """Largest random shift of a training image along each axis, in pixels; drawn again in each epoch."""
    bend: float = 0.0
    """Elastic distortion of training images: standard deviation of the displacement at 4×4 points, in pixels; drawn
    again in each epoch."""
    held_out: int = 0
    """Number of training images, taken from the end, that are held out for validation."""
    digits: tuple[int, ...] = tuple(range(10))
    """Digits that occur in the training images (with --teachers: in the transfer set)."""
    teachers: tuple[Path, ...] = ()
    """Folders of the networks whose averaged soft targets are learnt; none: train with labels only."""
    temperature: float = 20.0
    """Temperature T of the soft targets; inf: match the teachers' logits."""
    hard_weight: float = 0.1
    """Weight of the labels, 0 to 1, when there are soft targets; 0: the transfer set needs no labels."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of matrix products (weights stay float32); auto: bfloat16 where the processor or GPU supports it."""
    device: str = field(default="auto", metadata=RUN_ONLY)
    """cpu, cuda, or auto."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.width < 1 or self.layers < 1:
            raise UserError("--epochs, --batch-size, --width and --layers must be positive: correct the flag")
        if not (0 <= self.dropout < 1 and 0 <= self.input_dropout < 1 and 0 <= self.hard_weight <= 1):
            raise UserError(
                "--dropout and --input-dropout must be in [0, 1), --hard-weight in [0, 1]: correct the flag"
            )
        if not self.temperature > 0 or not 0 <= self.jitter <= 28:
            raise UserError("--temperature must be positive, and --jitter from 0 to 28: correct the flag")
        if not (self.max_norm >= 0 and 0 <= self.bend < 28):
            raise UserError("--max-norm must be at least 0, and --bend at least 0 and below 28: correct the flag")
        if not 0 <= self.held_out < 60_000:
            raise UserError("--held-out must be at least 0 and below 60,000, the number of images: correct the flag")
        if not self.digits or not set(self.digits) <= set(range(10)):
            raise UserError("--digits must be one or more of 0 to 9: correct the flag")

    def stage(self) -> Stage:
        """Return the completion mark of the network.

        Raises:
            UserError: a teacher is missing or unfinished.
        """
        return Stage("mnist", self.out, self, self.teachers)
