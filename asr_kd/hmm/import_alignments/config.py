"""Flags of ``python -m asr_kd.hmm.import_alignments``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.parallel import Workers


@dataclass
class Config(Workers):
    """Put alignments made elsewhere on the cuts: one pdf-id per frame, or transition-ids with --model.

    Utterances without an alignment, or with one that is more than 3 frames longer or shorter than the
    features, are skipped and listed in skipped_SPLIT.tsv.
    """

    features: Path
    """Folder that python -m asr_kd.features filled."""
    ark: tuple[Path, ...]
    """Kaldi tables of integer vectors by utterance: .ark, .ark.gz (or ali.1.gz), .scp."""
    out: Path
    """Folder for the aligned cuts."""
    model: Path | None = None
    """Kaldi's .mdl (binary): the vectors hold its transition-ids, as ali.*.gz do, not pdf-ids."""
    tree: Path | None = None
    """Kaldi's tree of that model; with both, a decoding graph can be made."""
    phones: Path | None = None
    """Kaldi's phones.txt, names for the model's phones; those that begin with SIL, SPN or NSN are silence."""
    silence_pdfs: tuple[int, ...] = ()
    """pdf-ids of silence, when --phones does not tell."""
