"""Flags of ``python -m asr_kd.mnist.study``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.parallel import Workers


@dataclasses.dataclass
class Config(Workers):
    """Train the networks of the study.  What is trained already is skipped."""

    data: Path
    """Folder with MNIST's four files (made by asr_kd.mnist.digits)."""
    out: Path
    """Each network goes to OUT/NAME/seed-N."""
    parts: tuple[int, ...] = (1, 2, 3, 4, 5)
    """1 large, small and distilled; 2 temperature against width; 3 a transfer set without threes; 4 one of sevens and
    eights alone; 5 past the paper.  Parts 2 to 5 need the large networks of part 1."""
    seeds: int = 5
    """Networks of each kind."""
    quick: bool = False
    """One seed, a twentieth of the epochs, few temperatures, nothing held out: to see that everything works."""
