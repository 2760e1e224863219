"""Flags of ``python -m asr_kd.specialists.report``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.settings import Settings


@dataclasses.dataclass
class Config(Settings):
    """Write report.md, index.html and the figures of a study of specialists."""

    results: tuple[Path, ...]
    """Folders of evaluations (written by asr_kd.specialists.evaluate), the first one with the other networks."""
    clusters: Path
    """Folder of the clusters (written by asr_kd.specialists.assign)."""
    specialists: Path
    """Folder of the specialists (written by asr_kd.specialists.train)."""
    out: Path
    """Folder of the report."""
    words: Path | None = None
    """Folder of word error rates, for speech (written by asr_kd.score)."""
    command: str = ""
    """Command that ran the study, quoted in the report."""
