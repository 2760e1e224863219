"""Flags of ``python -m asr_kd.hmm.graph``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Config:
    """Compile the decoding graph: HMM states in (senone + 1), words out."""

    lang: Path
    """Folder that python -m asr_kd.lang filled."""
    gmm: Path
    """Folder that python -m asr_kd.hmm filled: tree and transition model."""
    out: Path
    """Folder for HCLG.fst, words.txt and graph.json."""
    transition_scale: float = 1.0
    """Scale of transition log probabilities between states."""
    self_loop_scale: float = 0.1
    """Scale of self-loop log probabilities: it acts like a bonus on short or long phones."""
