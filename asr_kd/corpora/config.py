"""Flags of ``python -m asr_kd.corpora``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Positive, Seed, within


@dataclass
class Config(Workers):
    """Prepare a corpus: Lhotse manifests of the splits train, dev and test, and of additional test sets.

    A part is a folder in LibriSpeech layout: NAME, or NAME:i/n for the i-th of n disjoint groups of its speakers, which
    have about the same number of utterances.  Bad utterances are skipped and listed in skipped_SPLIT.tsv.
    """

    out: Path
    """Folder for the manifests."""
    corpus: Literal["embedded", "mini_librispeech", "train-clean-100", "librispeech"] = "embedded"
    """The corpus to use without --corpus-dir: a synthetic one, or a download."""
    corpus_dir: Path | None = None
    """Root of a tree in LibriSpeech layout; needs --train, --dev and --test."""
    train: tuple[str, ...] = ()
    """Parts to train on."""
    dev: tuple[str, ...] = ()
    """Parts to tune on."""
    test: tuple[str, ...] = ()
    """Parts to test on."""
    also: tuple[Path, ...] = ()
    """Additional test sets, ROOT/PART each, named after their part."""
    download_dir: Path = Path("data")
    """Folder for downloads."""
    train_minutes: Positive = 60.0
    """Minutes of speech in the train split of the embedded corpus."""
    dev_minutes: Positive = 6.0
    """Minutes of speech in its dev split."""
    test_minutes: Positive = 12.0
    """Minutes of speech in its test split."""
    voices: Annotated[tuple[int, int, int], within(1)] = (48, 8, 16)
    """Number of voices in its train, dev and test splits."""
    seed: Seed = 0
    """Random seed of the embedded corpus."""
