"""Flags of ``python -m asr_kd.hmm.adapt``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import within


@dataclass
class Config(Workers):
    """Adapt GMMs to speakers by the words that were recognised, for a second pass of decoding.

    The GMMs must have been trained with SAT, as they are by default. Decode with them first, adapt them by that, and
    decode again with --out of this as --model. Whoever speaks for less than 5 s is not adapted to.
    """

    gmm: Path
    """Folder filled by python -m asr_kd.hmm, without --no-sat."""
    decoded: Path
    """Folder filled by python -m asr_kd.decode, with hyp_SPLIT.tsv."""
    lang: Path
    """Folder filled by python -m asr_kd.lang."""
    features: Path
    """Folder filled by python -m asr_kd.features, whose cuts were decoded."""
    out: Path
    """Output folder for copies of the models and the transforms of the speakers (fmllr.ark, as Kaldi's)."""
    splits: Annotated[tuple[str, ...], within(filled=True, different=True)] = ("dev", "test")
    """Decoded splits."""
