"""Flags of ``python -m asr_kd.mnist.report``."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass
class Config:
    """Write report.md, results.json, index.html and figures of a study."""

    data: Path
    """Folder with MNIST's four files (made by asr_kd.mnist.digits)."""
    networks: Path
    """Folder that asr_kd.mnist.study filled."""
    out: Path
    """Folder of the report."""
    command: str = ""
    """Command that made the networks, for the report."""
