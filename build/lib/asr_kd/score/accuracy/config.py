"""Flags of ``python -m asr_kd.score.accuracy``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from asr_kd.common.parallel import Workers


@dataclasses.dataclass
class Config(Workers):
    """Frame accuracy: share of frames, of all and of speech, whose most probable senone is the aligned one."""

    systems: tuple[str, ...]
    """NAME=DIR for a network, NAME=DIR,DIR,... for an ensemble (the posteriors of its networks are averaged)."""
    features: Path
    """Features folder (made by asr_kd.features)."""
    cuts: Path
    """Folder with cuts_SPLIT.jsonl.gz that carry senones (made by asr_kd.hmm)."""
    out: Path
    """Folder for the results: OUT/NAME/accuracy.json for each system."""
    splits: tuple[str, ...] = ("dev", "test")
    """Splits to measure."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """Mean of the posteriors of an ensemble."""
