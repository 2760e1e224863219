"""Flags of ``python -m asr_kd.lang``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass
class Config:
    """Make the lexicon, the n-gram language model, and the machines L and G of a prepared corpus.

    Words are those of the training transcripts and the frequent ones of --lm-text.  Dev transcripts choose
    the mixture of the texts' language models and are otherwise only reported on.
    """

    data: Path
    """Folder that python -m asr_kd.corpora filled."""
    out: Path
    """Folder for lexicon.txt, words.txt, phones.txt, lm.arpa, L.fst, L_disambig.fst, G.fst, …"""
    lm_text: tuple[Path, ...] = ()
    """More text for the language model, one sentence a line, .txt or .txt.gz."""
    units: Literal["phone", "sentencepiece"] = "phone"
    """Words pronounced in phones, or sentencepiece pieces pronounced as letters (then no word is unknown)."""
    lexicon: Path | None = None
    """Pronunciations, lines WORD PHONE PHONE … (LibriSpeech's, say), instead of the CMU dictionary."""
    max_words: int = 200_000
    """Size of the vocabulary at most; words of the transcripts are always in."""
    min_count: int = 2
    """A word of --lm-text is taken if it comes this often."""
    vocab_size: int = 200
    """Sentencepiece pieces to learn."""
    order: int | None = None
    """Order of the n-gram model, 1 to 5 (default: 2 for words, 4 for pieces)."""
    transcript_weight: float | None = None
    """Share of the transcripts' model in the mixture, 0 to 1, when there is --lm-text (default: the share,
    and each text's, that suits dev best; 0.5 without dev)."""
    prune: float | None = None
    """Leave out n-grams without which perplexity rises by less than this, relatively; 0 keeps all (default:
    1e-7 for words, 1e-6 for pieces, whose graphs grow faster)."""
    arpa: Path | None = None
    """Language model made elsewhere (ARPA, .gz too): it and its words instead of a model of the texts."""
    silence_probability: float = 0.5
    """Of a silence between two words."""
