"""Flags of ``python -m asr_kd.specialists.classify``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asr_kd.common.parallel import Workers
from asr_kd.common.storage import RUN_ONLY


@dataclass
class Config(Workers):
    """Train networks on images, on labels, soft targets or both."""

    images: Path
    """Folder of images (made by asr_kd.specialists.images)."""
    out: Path
    """Each network goes to OUT/seed-N."""
    seeds: tuple[int, ...] = (0,)
    """One network for each seed."""
    layers: int = 3
    """Hidden layers of ReLUs."""
    width: int = 1000
    """Units in each hidden layer."""
    dropout: float = 0.2
    """Share of hidden units dropped in training."""
    batch_norm: bool = True
    """Normalise the input of every ReLU over the batch."""
    start_from: Path | None = None
    """Network whose size and weights it begins with; none: random weights."""
    soft_targets: Path | None = None
    """Store of soft targets (made by asr_kd.specialists.targets); none: labels alone."""
    hard_weight: float = 0.1
    """Weight of the labels beside soft targets, 0 to 1."""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 512
    """Images a batch."""
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule (AdamW)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Matrix products in bfloat16 (weights stay float32); auto: where the processor or GPU has it."""
    device: str = field(default="auto", metadata=RUN_ONLY)
    """cpu, cuda, or auto."""
