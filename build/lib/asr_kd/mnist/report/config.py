"""Flags of ``python -m asr_kd.mnist.report``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.settings import Settings


@dataclasses.dataclass
class Config(Settings):
    """Write report.md, results.json, index.html and the figures of the MNIST study."""

    data: Path
    """Folder with MNIST's four files (written by asr_kd.mnist.digits)."""
    networks: Path
    """Folder of the networks (written by asr_kd.mnist.study)."""
    out: Path
    """Folder of the report."""
    command: str = ""
    """Command that trained the networks, quoted in the report."""
