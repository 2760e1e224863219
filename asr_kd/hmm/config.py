"""Flags of ``python -m asr_kd.hmm``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asr_kd.common.parallel import Workers


@dataclass
class Config(Workers):
    """Train GMM-HMMs (flat-start monophones, decision tree, triphones) and align every split with them.

    Utterances that do not align with their transcript are skipped and listed in skipped_SPLIT.tsv; words
    outside the lexicon get a guessed pronunciation, listed in guessed_SPLIT.tsv.
    """

    features: Path
    """Folder that python -m asr_kd.features filled."""
    lang: Path
    """Folder that python -m asr_kd.lang filled."""
    out: Path
    """Folder for the models and the aligned cuts."""
    leaves: int = 600
    """Senones: leaves of the decision tree, silence's included."""
    gaussians: int = 0
    """Gaussians of the triphones in all (0: ten a leaf)."""
    mono_gaussians: int = 1000
    """Gaussians of the monophones in all."""
    min_leaf_frames: float = 50.0
    """Training frames that each leaf must have, in frames of 10 ms."""
    silence_states: Literal[1, 3, 5] = 3
    """Senones of silence, its states, 10 ms or more each; with 1 (and three states), every frame of silence is the
    same one, but pauses leak into the phones beside them."""
    cmn: Literal["utterance", "speaker"] = "utterance"
    """Whose mean the GMMs' cepstra lose."""
    perturbed: bool = False
    """Train the GMMs on speed-perturbed copies too; without, those are only aligned."""
    seed: int = 0
    """Seed of the growth of mixtures."""
