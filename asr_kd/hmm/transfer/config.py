"""Flags of ``python -m asr_kd.hmm.transfer``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Config:
    """Give cuts the senones of the same utterance in another alignment; noisy copies get those of the clean recording.

    The result takes the place of the folder that python -m asr_kd.hmm makes where networks are trained and measured.
    Utterances that the other alignment lacks are listed in skipped_SPLIT.tsv.
    """

    features: Path
    """Folder that python -m asr_kd.features filled: its cuts get senones."""
    cuts: Path
    """Folder with cuts_SPLIT.jsonl.gz that carry senones (made by asr_kd.hmm)."""
    out: Path
    """Folder for the cuts."""
