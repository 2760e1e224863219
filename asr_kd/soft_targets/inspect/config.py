"""Flags of ``python -m asr_kd.soft_targets.inspect``."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass
class Config:
    """Print what a store of soft targets holds: size, mass kept, entropies, and how often teachers disagree with
    the labels.  Every shard's checksum is verified on the way; damaged ones are listed, and the exit status is 1."""

    store: Path
    """Folder of the store (made by asr_kd.soft_targets)."""
    features: Path
    """Features folder that it was made from."""
    cuts: Path | None = None
    """Cuts that carry senones (cuts_SPLIT.jsonl.gz, made by asr_kd.hmm): adds the share of frames where the
    likeliest class is not the label."""
