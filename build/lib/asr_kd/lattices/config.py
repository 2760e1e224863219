"""Flags of ``python -m asr_kd.lattices``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from asr_kd.common.settings import Settings, within


@dataclass
class Config(Settings):
    """Lattices of a decoding → a store for sequence training (python -m asr_kd.train --lattices)."""

    decoded: Path
    """Folder of a decoding with --lattices (made by asr_kd.decode)."""
    out: Path
    """Folder for the store."""
    splits: Annotated[tuple[str, ...], within(filled=True)] = ("train", "dev")
    """Splits whose lattices are stored: training needs train and dev."""
