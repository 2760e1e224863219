"""Flags of ``python -m asr_kd.specialists.targets``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.parallel import Workers
from asr_kd.specialists.config import ExamplesConfig


@dataclasses.dataclass(kw_only=True)
class Config(Workers, ExamplesConfig):
    """Write soft targets for the training examples."""

    more: tuple[Path, ...] = ()
    """Further generalists, whose probabilities are averaged with its own (without --clusters)."""
    specialists: Path | None = None
    """Folder that asr_kd.specialists.train filled; none: generalists alone."""
    out: Path
    """Folder of the store."""
    likeliest: int = 1
    """So many of the generalist's likeliest classes choose which specialists have a say."""
    temperature: float = 1.0
    """The combined distribution is raised to the power of 1/T, and scaled to one again."""
    floor: float = 0.02
    """Classes that reach this probability are kept; of the others a random few (asr_kd.soft_targets)."""
    seed: int = 0
    """Of the random few."""
