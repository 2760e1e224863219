"""Flags of ``python -m asr_kd.hmm``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Count, Natural, NotNegative, Seed, within


@dataclass
class Config(Workers):
    """Train GMM-HMMs (flat-start monophones, decision tree, triphones) and align every split with them.

    Utterances that do not align with their transcript are skipped and listed in skipped_SPLIT.tsv.  Words outside the
    lexicon get a guessed pronunciation, listed in guessed_SPLIT.tsv.
    """

    features: Path
    """Folder filled by python -m asr_kd.features."""
    lang: Path
    """Folder filled by python -m asr_kd.lang."""
    out: Path
    """Output folder for the models and the aligned cuts."""
    leaves: Annotated[int, within(10)] = 600
    """Maximum number of senones, the leaves of the decision tree, including those of silence. Little data gets fewer: a
    leaf is split only if that raises the log-likelihood of its frames by 300."""
    gaussians: Natural = 0
    """Total number of Gaussians of the triphones (0: six per leaf)."""
    mono_gaussians: Count = 1000
    """Total number of Gaussians of the monophones."""
    mono_utterances: Natural = 3000
    """Number of the shortest training utterances that the monophones are trained on (0: all). They only give the
    triphones their first alignment."""
    transform: Literal["lda", "delta"] = "lda"
    """Features of the triphones: LDA and MLLT of the cepstra of 9 frames, or cepstra with deltas and delta-deltas."""
    sat: bool = True
    """Adapt the features to each speaker (fMLLR), in training and in the alignment of every split. An utterance of an
    unknown speaker is a speaker of its own. Whoever speaks for less than 5 s is not adapted to."""
    min_leaf_frames: NotNegative = 50.0
    """Minimum number of training frames (of 10 ms) per leaf."""
    silence_states: Literal[1, 3, 5] = 3
    """Number of senones of silence. With 3 or 5, each state has its own senone and lasts 10 ms or more; with 1, its
    three states share a senone, so that all frames of silence have the same label, but pauses leak into the
    neighbouring phones."""
    perturbed: bool = False
    """Train the GMMs on the speed-perturbed copies too; otherwise these are only aligned."""
    seed: Seed = 0
    """Random seed for the splitting of Gaussians."""
