"""Flags of ``python -m asr_kd.specialists.targets``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Count, Positive, Seed, within
from asr_kd.specialists.config import ExamplesConfig


@dataclasses.dataclass(kw_only=True)
class Config(Workers, ExamplesConfig):
    """Write soft targets for the training examples."""

    more: tuple[Path, ...] = ()
    """Further generalists, whose posteriors are averaged with the generalist's (without --specialists)."""
    specialists: Path | None = None
    """Folder of specialists (written by asr_kd.specialists.train); none: generalists only."""
    out: Path
    """Folder of the store."""
    top_k: Count = 1
    """Activate the specialists that cover the generalist's top-k classes."""
    temperature: Positive = 1.0
    """Temperature T: the combined distribution is raised to the power of 1/T and normalised."""
    floor: Annotated[float, within(0.004, 1)] = 0.02
    """Classes with at least this probability are kept, and a few of the others at random (see asr_kd.soft_targets)."""
    seed: Seed = 0
    """Seed of the random choice."""
