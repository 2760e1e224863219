"""Flags of ``python -m asr_kd.soft_targets.inspect``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.settings import Settings


@dataclasses.dataclass
class Config(Settings):
    """Print what a store of soft targets contains: size, mass kept, entropies, and how often the teachers disagree with
    the labels.  The checksums of all shards are verified; damaged shards are listed, and the exit status is then 1."""

    store: Path
    """Folder of the store (made by asr_kd.soft_targets)."""
    features: Path
    """Features folder that it was made from."""
    cuts: Path | None = None
    """Manifest of cuts with senones (cuts_SPLIT.jsonl.gz, made by asr_kd.hmm): adds the share of frames whose most
    probable class is not the label."""
