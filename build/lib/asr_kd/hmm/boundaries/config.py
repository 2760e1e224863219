"""Flags of ``python -m asr_kd.hmm.boundaries``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.settings import Settings


@dataclass
class Config(Settings):
    """Compare the phone and word boundaries of an alignment with the true ones, which the embedded corpus has.

    The phones of each utterance are matched by edit distance, and the start and the end of each matched phone are
    compared; words likewise.  Writes boundaries.json and, for histograms, boundaries_SPLIT.npy with the signed errors
    of the phone boundaries in ms.
    """

    cuts: Path
    """Folder with aligned cuts, filled by python -m asr_kd.hmm."""
    truth: Path
    """Folder with truth_SPLIT.jsonl.gz, filled by python -m asr_kd.corpora."""
    out: Path
    """Output folder."""
    splits: tuple[str, ...] = ("train", "dev", "test")
    """Splits to compare."""
