"""Flags of ``python -m asr_kd.mnist.study``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Count, within


@dataclasses.dataclass
class Config(Workers):
    """Train all networks of the study.  Networks that are finished are skipped."""

    data: Path
    """Folder with MNIST's four files (written by asr_kd.mnist.digits)."""
    out: Path
    """Each network goes to OUT/NAME/seed-N."""
    parts: Annotated[tuple[int, ...], within(1, 5)] = (1, 2, 3, 4, 5)
    """1 large, small and distilled; 2 temperature against width; 3 transfer set without threes; 4 transfer set of only
    sevens and eights; 5 extensions of the paper.  Parts 2 to 5 need the large networks of part 1."""
    seeds: Count = 5
    """Networks of each kind."""
    quick: bool = False
    """One seed, a twentieth of the epochs, few temperatures, no validation: a check that everything works."""
