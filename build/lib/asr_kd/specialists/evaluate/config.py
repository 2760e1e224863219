"""Flags of ``python -m asr_kd.specialists.evaluate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.settings import Count
from asr_kd.specialists.config import ExamplesConfig


@dataclasses.dataclass(kw_only=True)
class Config(ExamplesConfig):
    """Measure the accuracy of a generalist, of the generalist with its specialists, and of other networks."""

    specialists: Path
    """Folder of specialists (written by asr_kd.specialists.train)."""
    others: tuple[str, ...] = ()
    """Other networks: NAME=MODEL, or NAME=MODEL,MODEL for an ensemble."""
    top_k: Count = 1
    """Activate the specialists that cover the generalist's top-k classes."""
    split: str = "test"
    """Split to evaluate on."""
    out: Path
    """Folder for results.json; right.npy, which answers are correct, (systems, examples); and units.npy, which examples
    depend on each other, as the frames of an utterance do."""
