"""Flags of ``python -m asr_kd.specialists.report``."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass
class Config:
    """Write report.md, index.html and figures of evaluations."""

    results: tuple[Path, ...]
    """Folders that asr_kd.specialists.evaluate filled; the first one has the figures."""
    clusters: Path
    """Folder that asr_kd.specialists.assign filled."""
    specialists: Path
    """Folder that asr_kd.specialists.train filled."""
    out: Path
    """Folder of the report."""
    words: Path | None = None
    """Folder that asr_kd.score filled, for speech."""
    command: str = ""
    """Command that made it all, for the report."""
