"""Flags of ``python -m asr_kd.corpora.subset``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Config:
    """Copy a folder of cuts, keeping a part of the training split: an utterance always with its copies at other speeds.

    Features, senones, normalisation and the counts of senones stay those of the whole folder.
    """

    cuts: Path
    """Folder with cuts_SPLIT.jsonl.gz (made by asr_kd.features or asr_kd.hmm)."""
    out: Path
    """Folder of the same form."""
    share: float = 1.0
    """Keep this share of the utterances, drawn at random: a smaller share is a part of a larger one's draw."""
    speakers: str = ""
    """Keep the i-th of n groups of speakers with about as many utterances each: i/n."""
    seed: int = 0
    """Of the draw."""
