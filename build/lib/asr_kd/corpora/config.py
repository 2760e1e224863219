"""Flags of ``python -m asr_kd.corpora``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Positive, Seed, within
from asr_kd.corpora.parts import Options


@dataclass
class Config(Options, Workers):
    """Prepare a corpus: Lhotse cuts of the splits train, dev and test, and of additional test sets.

    A part is a folder in LibriSpeech layout (FLAC, WAV, MP3, OGG or Opus), a Kaldi data folder, a Lhotse manifest of
    cuts or of recordings (with supervisions beside it), or a table (.csv, .tsv) of audio files and transcripts.  NAME
    is a part, and NAME:i/n the i-th of n disjoint groups of its speakers, which have about the same number of
    utterances.  Bad utterances are skipped and listed in skipped_SPLIT.tsv.
    """

    out: Path
    """Folder for the manifests."""
    corpus: Literal["embedded", "mini_librispeech", "train-clean-100", "librispeech"] = "embedded"
    """The corpus to use without --train, --dev and --test: a synthetic one, or a download."""
    corpus_dir: Path | None = None
    """Folder in which --train, --dev and --test are."""
    train: tuple[str, ...] = ()
    """Parts to train on."""
    dev: tuple[str, ...] = ()
    """Parts to tune on."""
    test: tuple[str, ...] = ()
    """Parts to test on."""
    also: tuple[Path, ...] = ()
    """Additional test sets, each named after its part."""
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
