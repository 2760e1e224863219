"""Flags of ``python -m asr_kd.score.accuracy``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from asr_kd.common.parallel import Workers


@dataclasses.dataclass
class Config(Workers):
    """Share of frames whose likeliest senone is the aligned one: on all frames, and on speech frames."""

    systems: tuple[str, ...]
    """NAME=DIR for a network's folder, NAME=DIR,DIR,... for an ensemble (its members' posteriors are averaged)."""
    features: Path
    """Features folder (made by asr_kd.features)."""
    cuts: Path
    """Folder with cuts_SPLIT.jsonl.gz that carry senones (made by asr_kd.hmm)."""
    out: Path
    """Each system's accuracy.json goes to OUT/NAME."""
    splits: tuple[str, ...] = ("dev", "test")
    """Splits to measure."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How an ensemble's posteriors are averaged."""
