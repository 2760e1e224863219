"""Flags of ``python -m asr_kd.hmm.features``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.parallel import Workers


@dataclass
class Config(Workers):
    """Compute the features that GMMs hear, adapted to each speaker (LDA, MLLT, fMLLR), for networks.

    Train is adapted by its transcripts; all other splits are adapted by what was recognised, as in use.  Give the
    senones to the new features with python -m asr_kd.hmm.transfer.
    """

    gmm: Path
    """Folder filled by python -m asr_kd.hmm, without --no-sat."""
    adapted: Path
    """Folder filled by python -m asr_kd.hmm.adapt, with the transforms of the speakers of dev and test."""
    features: Path
    """Folder filled by python -m asr_kd.features, from which the GMMs were trained."""
    out: Path
    """Folder for the features."""
