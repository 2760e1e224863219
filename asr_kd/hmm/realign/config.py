"""Flags of ``python -m asr_kd.hmm.realign``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asr_kd.common.parallel import Workers


@dataclass
class Config(Workers):
    """Forced alignment with a network's scores, or with scores made elsewhere: the same senones, better placed.

    The scores of an utterance are log-likelihoods (log posterior − log prior) of the senones of ``gmm``.
    The result has the form of the folder that python -m asr_kd.hmm makes, and takes its place.
    """

    gmm: Path
    """Folder that python -m asr_kd.hmm filled: the topology, tree and transition model to align with."""
    lang: Path
    """Folder that python -m asr_kd.lang filled."""
    features: Path
    """Folder that python -m asr_kd.features filled: its cuts are aligned."""
    out: Path
    """Folder for the aligned cuts and copies of the models."""
    model: tuple[Path, ...] = ()
    """A network's folder, or several for an ensemble."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How an ensemble's posteriors are averaged."""
    scores: Path | None = None
    """Instead of --model, a folder with one (T, C) array per utterance, ID.npy."""
