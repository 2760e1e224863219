"""Flags of ``python -m asr_kd.features``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asr_kd.common.parallel import Workers

#: Frames that mean and variance are taken of.
Over = Literal["all", "speech"]


@dataclass
class Config(Workers):
    """Compute log-mel features of a prepared corpus: 25 ms windows every 10 ms, 40 filters, no dither.

    Damaged, silent or too short recordings are skipped and listed in skipped_SPLIT.tsv.
    """

    data: Path
    """Folder that python -m asr_kd.corpora filled."""
    out: Path
    """Folder for the features."""
    normalise: Literal["speaker", "utterance"] = "speaker"
    """Mean and variance are taken of all utterances of a speaker, or of each utterance."""
    normalise_over: Over = "all"
    """Of all frames, or of those with speech (louder than halfway between an utterance's quietest and loudest):
    how long somebody pauses does not move the features then."""
    speed_perturb: tuple[float, ...] = ()
    """Further copies of the training split at these speeds, such as 0.9 1.1."""
    babble: tuple[float, ...] = ()
    """Further splits with others speaking in the background, at these ratios of speech to noise in dB: train_noisy and
    dev_noisy, each cut with one of them, and test_snrN for each."""
