"""Flags of ``python -m asr_kd.specialists.classify``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Count, Dropout, Positive, Seeds, Share
from asr_kd.common.storage import RUN_ONLY


@dataclass
class Config(Workers):
    """Train networks on images, with labels, soft targets or both."""

    images: Path
    """Folder of images (written by asr_kd.specialists.images)."""
    out: Path
    """Each network goes to OUT/seed-N."""
    seeds: Seeds = (0,)
    """Seeds; each gives one network."""
    layers: Count = 3
    """Hidden layers of ReLUs."""
    width: Count = 1000
    """Units per hidden layer."""
    dropout: Dropout = 0.2
    """Dropout rate of hidden units."""
    batch_norm: bool = True
    """Batch normalisation before every ReLU."""
    start_from: Path | None = None
    """Network whose size and weights are taken over; none: random weights."""
    soft_targets: Path | None = None
    """Store of soft targets (written by asr_kd.specialists.targets); none: labels only."""
    hard_weight: Share = 0.1
    """Weight of the labels when there are soft targets."""
    epochs: Count = 10
    """Passes over the training images."""
    batch_size: Count = 512
    """Images per batch."""
    learning_rate: Positive = 1e-3
    """Peak learning rate of the one-cycle schedule (AdamW)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number type of matrix products (weights stay float32); auto: bfloat16 if it is measured to be at
    least 1.2 times as fast here."""
    device: str = field(default="auto", metadata=RUN_ONLY)
    """cpu, cuda, or auto."""
