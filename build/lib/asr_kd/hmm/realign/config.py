"""Flags of ``python -m asr_kd.hmm.realign``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asr_kd.common.parallel import Workers


@dataclass
class Config(Workers):
    """Realign every split with the scores of networks or with stored scores, which places the senones more exactly.

    The scores of an utterance are log-likelihoods (log posterior − log prior) of the senones in ``gmm``.  All later
    stages accept the resulting folder in place of one from python -m asr_kd.hmm.
    """

    gmm: Path
    """Folder filled by python -m asr_kd.hmm, with the topology, the decision tree and the transition model."""
    lang: Path
    """Folder filled by python -m asr_kd.lang."""
    features: Path
    """Folder filled by python -m asr_kd.features; its cuts are aligned."""
    out: Path
    """Output folder for the aligned cuts and copies of the models."""
    model: tuple[Path, ...] = ()
    """Folder of a network, or several folders for an ensemble."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How the posteriors of an ensemble are averaged."""
    scores: Path | None = None
    """Folder with one array (T, C) per utterance, ID.npy, instead of --model."""
