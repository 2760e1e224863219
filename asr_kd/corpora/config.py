"""Flags of ``python -m asr_kd.corpora``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from asr_kd.common.parallel import Workers


@dataclass
class Config(Workers):
    """Prepare a corpus: Lhotse manifests of the splits train, dev and test (and of further test sets).

    A part is a folder in LibriSpeech layout, NAME or NAME:i/n, the i-th of n disjoint groups of its speakers
    with about as many utterances each.  Bad utterances are skipped and listed in skipped_SPLIT.tsv.
    """

    out: Path
    """Folder for the manifests."""
    corpus: Literal["embedded", "mini_librispeech", "train-clean-100", "librispeech"] = "embedded"
    """What to use without --corpus-dir: a synthetic corpus made on the spot, or a download."""
    corpus_dir: Path | None = None
    """Root of a tree in LibriSpeech layout, with --train, --dev and --test."""
    train: tuple[str, ...] = ()
    """Parts to train on."""
    dev: tuple[str, ...] = ()
    """Parts to tune on."""
    test: tuple[str, ...] = ()
    """Parts to test on."""
    also: tuple[Path, ...] = ()
    """Further test sets, ROOT/PART each, named by their part."""
    download_dir: Path = Path("data")
    """Where downloads go."""
    train_minutes: float = 60.0
    """Size of the embedded corpus's train split, in minutes of speech."""
    dev_minutes: float = 6.0
    """The same for dev."""
    test_minutes: float = 12.0
    """The same for test."""
    voices: tuple[int, int, int] = (48, 8, 16)
    """Voices of the embedded corpus's train, dev and test splits."""
    seed: int = 0
    """Seed of the embedded corpus."""
