"""Flags of ``python -m asr_kd.hmm.import_alignments``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import within


@dataclass
class Config(Workers):
    """Add alignments made with Kaldi to the cuts: pdf-ids per frame, or transition-ids with --model.

    Utterances are skipped and listed in skipped_SPLIT.tsv if they have no alignment, or one that is more than 3 frames
    longer or shorter than the features.
    """

    features: Path
    """Folder filled by python -m asr_kd.features."""
    ark: tuple[Path, ...]
    """Kaldi tables of integer vectors indexed by utterance: .ark, .ark.gz (or ali.1.gz), .scp."""
    out: Path
    """Output folder for the aligned cuts."""
    model: Path | None = None
    """Kaldi's .mdl (binary) if the vectors are its transition-ids, as in ali.*.gz, instead of pdf-ids."""
    tree: Path | None = None
    """Kaldi's tree for --model; with both, python -m asr_kd.hmm.graph can compile a decoding graph."""
    phones: Path | None = None
    """Kaldi's phones.txt with the names of the model's phones; names that begin with SIL, SPN or NSN are silence."""
    silence_pdfs: Annotated[tuple[int, ...], within(0)] = ()
    """pdf-ids of silence; if not given, those of the silence phones in --phones."""
