"""Flags of ``python -m asr_kd.hmm.graph``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.settings import NotNegative, Settings


@dataclass
class Config(Settings):
    """Compile the decoding graph HCLG, which maps senones (input labels are senone + 1) to words."""

    lang: Path
    """Folder filled by python -m asr_kd.lang."""
    gmm: Path
    """Folder filled by python -m asr_kd.hmm, with the decision tree and the transition model."""
    out: Path
    """Output folder for HCLG.fst, words.txt, graph.json, lm.arpa, the language model of the graph, and
    pronunciations.json, by which words have times."""
    transition_scale: NotNegative = 1.0
    """Scale of the log-probabilities of transitions between states."""
    self_loop_scale: NotNegative = 0.1
    """Scale of the log-probabilities of self-loops, which changes the preference for long or short phones."""
