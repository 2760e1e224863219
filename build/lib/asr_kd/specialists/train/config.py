"""Flags of ``python -m asr_kd.specialists.train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Count, Dropout, Positive, Seed, Share
from asr_kd.specialists.config import ExamplesConfig


@dataclasses.dataclass(kw_only=True)
class Config(Workers, ExamplesConfig):
    """Train specialists: half of their examples belong to their own classes, half to the others, taken as one class."""

    clusters: Path
    """Folder of the clusters (written by asr_kd.specialists.assign)."""
    out: Path
    """Each specialist goes to OUT/specialist-NN."""
    full: bool = False
    """One output for every class, instead of a single dustbin for the other classes (section 6.1)."""
    soft_weight: Share = 0.0
    """Weight of the generalist's soft targets relative to the labels (section 6); 0: labels only."""
    temperature: Positive = 1.0
    """Temperature of the generalist's soft targets."""
    dropout: Dropout = 0.2
    """Dropout rate of hidden units."""
    epochs: Count = 3
    """Passes over a specialist's examples."""
    batch_size: Count = 512
    """Examples per batch."""
    learning_rate: Positive = 3e-4
    """Peak learning rate of the one-cycle schedule (AdamW)."""
    seed: Seed = 0
    """Seed for the order of examples, dropout, and the choice of examples from other classes."""
