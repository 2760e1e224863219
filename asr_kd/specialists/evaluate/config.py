"""Flags of ``python -m asr_kd.specialists.evaluate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.specialists.config import ExamplesConfig


@dataclasses.dataclass(kw_only=True)
class Config(ExamplesConfig):
    """Count right answers of a generalist, of it with its specialists, and of other networks."""

    specialists: Path
    """Folder that asr_kd.specialists.train filled."""
    others: tuple[str, ...] = ()
    """More networks, NAME=MODEL or NAME=MODEL,MODEL for an ensemble."""
    likeliest: int = 1
    """So many of the generalist's likeliest classes choose which specialists have a say."""
    split: str = "test"
    """Part of the data."""
    out: Path
    """Folder for results.json; right.npy: (systems, examples) which answers are right; and units.npy: which examples
    belong together, such as the frames of an utterance."""
