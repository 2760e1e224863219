"""Flags of ``python -m asr_kd.features``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import within


@dataclass
class Config(Workers):
    """Compute log-mel features of a prepared corpus: 25 ms windows every 10 ms, 40 filters, no dither.

    Recordings that are damaged, silent or too short are skipped and listed in skipped_SPLIT.tsv.
    They are normalised by the frames of speech, so that silence around it and the level do not move them.
    """

    data: Path
    """Folder of the corpus (made by asr_kd.corpora)."""
    out: Path
    """Folder for the features."""
    normalise: Literal["speaker", "utterance"] = "utterance"
    """Normalise by the speech of the utterance alone, or also by that of its speaker, which suits short utterances.
    Audio files, whose speakers are unknown, are normalised by their own speech in any case."""
    speed_perturb: Annotated[tuple[float, ...], within(0.5, 2, different=True)] = ()
    """Add copies of the training split at these speeds, such as 0.9 1.1."""
    babble: Annotated[tuple[float, ...], within(-100, 100, different=True)] = ()
    """Add splits with background speakers at these SNRs in dB: train_noisy, dev_noisy (one per cut) and test_snrN."""
