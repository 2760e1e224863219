"""Flags of ``python -m asr_kd.hmm.transfer``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.settings import Settings


@dataclass
class Config(Settings):
    """Copy the senones of an alignment to the cuts of other features; copies get those of the clean recording.

    Training and evaluation of networks accept the resulting folder in place of one from python -m asr_kd.hmm.
    A copy with longer margins has silence in them.
    Utterances without an alignment are listed in skipped_SPLIT.tsv.
    """

    features: Path
    """Folder filled by python -m asr_kd.features; its cuts get the senones."""
    cuts: Path
    """Folder with aligned cuts, cuts_SPLIT.jsonl.gz, filled by python -m asr_kd.hmm."""
    out: Path
    """Output folder for the cuts."""
