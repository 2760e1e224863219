"""Flags of ``python -m asr_kd.hmm.boundaries``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Config:
    """Compare an alignment with known phone and word times (of the embedded corpus).

    The phones of an utterance are matched by edit distance; the start and the end of each matched phone
    count, and so for words.  Writes boundaries.json and, for a histogram, boundaries_SPLIT.npy
    with the signed errors of phone boundaries in ms.
    """

    cuts: Path
    """Folder with the aligned cuts (made by python -m asr_kd.hmm)."""
    truth: Path
    """Folder with truth_SPLIT.jsonl.gz (made by python -m asr_kd.corpora)."""
    out: Path
    """Folder for the result."""
    splits: tuple[str, ...] = ("train", "dev", "test")
    """Splits to compare."""
