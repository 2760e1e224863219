"""Flags of ``python -m asr_kd.specialists.train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.parallel import Workers
from asr_kd.specialists.config import ExamplesConfig


@dataclasses.dataclass(kw_only=True)
class Config(Workers, ExamplesConfig):
    """Train specialists: half their examples are of their classes, half of the others, which are one class to them."""

    clusters: Path
    """Folder that asr_kd.specialists.assign filled."""
    out: Path
    """Each specialist goes to OUT/specialist-NN."""
    full: bool = False
    """An output for every class, instead of one for all that are not special (section 6.1)."""
    soft_weight: float = 0.0
    """Weight of the generalist's soft targets beside labels (section 6), 0 to 1; 0: labels alone."""
    temperature: float = 1.0
    """Of the generalist's soft targets."""
    dropout: float = 0.2
    """Share of hidden units dropped in training."""
    epochs: int = 3
    """Passes over a specialist's examples."""
    batch_size: int = 512
    """Examples a batch."""
    learning_rate: float = 3e-4
    """Peak of the one-cycle schedule (AdamW)."""
    seed: int = 0
    """Of the order of examples, dropout, and which of the other classes' examples are seen."""
