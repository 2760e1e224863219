"""Flags of ``python -m asr_kd.score``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Unit = Literal["utterance", "speaker"]


@dataclass
class Config:
    """Word error rates of decoded splits, with 95 % bootstrap intervals and paired comparisons."""

    hyp: tuple[Path, ...]
    """Decoded folders (with hyp_SPLIT.tsv); a system is called by its folder's name."""
    cuts: Path
    """Folder with the cuts_SPLIT.jsonl.gz that were decoded: their supervisions are the reference."""
    out: Path
    """Folder for score.json and score.md."""
    splits: tuple[str, ...] = ("test",)
    """Splits to score."""
    pairs: tuple[str, ...] = ()
    """Systems to compare, A:B each: by how much B's error rate differs from A's."""
    bootstrap_by: Unit = "utterance"
    """What is drawn with replacement: utterances, as is usual, or speakers, whose utterances are not independent
    of each other (wider, more honest intervals; with fewer than about ten speakers a rough guide only)."""
    replications: int = 10_000
    """Bootstrap draws."""
    seed: int = 0
    """Seed of the draws."""
