"""Flags of ``python -m asr_kd.corpora.subset``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from asr_kd.common.settings import Seed, Settings, within


@dataclass
class Config(Settings):
    """Copy a folder of cuts with a part of the training split; an utterance stays together with copies that are kept.

    Features, senones, normalisation and senone counts are still those of the whole folder.
    """

    cuts: Path
    """Folder with cuts_SPLIT.jsonl.gz (made by asr_kd.features or asr_kd.hmm)."""
    out: Path
    """Folder for the copy."""
    share: Annotated[float, within(above=0, high=1)] = 1.0
    """Keep this share of the utterances, drawn at random; a smaller share is contained in a larger one."""
    speakers: str = ""
    """Keep the i-th of n groups of speakers, which have about the same number of utterances: i/n."""
    copies: bool = True
    """Keep the copies of the utterances: at other speeds, with background speakers, or degraded."""
    seed: Seed = 0
    """Seed of the random draw."""
