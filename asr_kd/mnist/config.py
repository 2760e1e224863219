"""Flags of ``python -m asr_kd.mnist``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asr_kd.common.storage import RUN_ONLY


@dataclass
class Config:
    """Train one network on MNIST: on the labels, or with the soft targets of other networks."""

    data: Path
    """Folder with MNIST's four files (made by asr_kd.mnist.digits)."""
    out: Path
    """Folder of the network."""
    seed: int = 0
    """Of initial weights, order of images, moves and dropout."""
    layers: int = 2
    """Hidden layers of ReLUs."""
    width: int = 800
    """Units in each hidden layer."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 256
    """Images a batch."""
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule (AdamW)."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    dropout: float = 0.0
    """Share of hidden units dropped in training."""
    input_dropout: float = 0.0
    """Share of pixels dropped in training."""
    max_norm: float = 0.0
    """Greatest length of the weights that enter a hidden unit; 0: no limit."""
    jitter: int = 0
    """Training images are moved by up to so many pixels either way, anew in each epoch."""
    bend: float = 0.0
    """Training images are bent, anew in each epoch: how far, in pixels (standard deviation at 4×4 points)."""
    held_out: int = 0
    """So many of the training images, the last ones, are not learnt from but tested on."""
    digits: tuple[int, ...] = tuple(range(10))
    """Digits that the training images (with teachers: the transfer set) have."""
    teachers: tuple[Path, ...] = ()
    """Folders of networks whose averaged soft targets to learn; none: labels alone."""
    temperature: float = 20.0
    """Temperature T of the soft targets; inf: the teachers' logits are matched."""
    hard_weight: float = 0.1
    """Weight of the labels beside soft targets, 0 to 1; 0: the transfer set needs no labels."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Matrix products in bfloat16 (weights stay float32); auto: where the processor or GPU has it."""
    device: str = field(default="auto", metadata=RUN_ONLY)
    """cpu, cuda, or auto."""
