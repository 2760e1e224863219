"""Flags of ``python -m asr_kd.lang``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.settings import Count, Natural, NotNegative, Settings, Share, within


@dataclass
class Config(Settings):
    """Make the lexicon, the n-gram language model and the transducers L and G of a prepared corpus.

    The vocabulary consists of all words of the training transcripts and the frequent words of --lm-text.  The dev
    transcripts determine the interpolation weights of the texts' language models; OOV rate and perplexity are
    reported on them.
    """

    data: Path
    """Folder filled by python -m asr_kd.corpora."""
    out: Path
    """Output folder for lexicon.txt, words.txt, phones.txt, lm.arpa, L.fst, L_disambig.fst, G.fst, …"""
    lm_text: tuple[Path, ...] = ()
    """Further texts for the language model, one sentence per line, .txt or .txt.gz."""
    units: Literal["phone", "sentencepiece"] = "phone"
    """Units of the language model: words pronounced in phones, or sentencepiece pieces pronounced as letters, with
    which there are no unknown words."""
    lexicon: Path | None = None
    """Pronunciation lexicon with lines WORD PHONE PHONE …, such as LibriSpeech's, instead of the CMU dictionary."""
    max_words: Natural = 200_000
    """Maximum size of the vocabulary; words of the transcripts are always included."""
    min_count: Count = 2
    """Minimum number of occurrences of a word of --lm-text."""
    vocab_size: Count = 200
    """Number of sentencepiece pieces to train."""
    order: Annotated[int | None, within(1, 5)] = None
    """Order of the n-gram model; if not given, 2 for words and 4 for pieces."""
    transcript_weight: Share | None = None
    """Interpolation weight of the transcripts' language model, with --lm-text; if not given, all weights are
    optimised on dev (0.5 without dev)."""
    prune: NotNegative | None = None
    """Entropy pruning: n-grams are removed if that increases the perplexity by less than this fraction; 0 keeps all. If
    not given, 1e-7 for words and 1e-6 for pieces, whose graphs grow faster."""
    arpa: Path | None = None
    """External language model (ARPA, also .gz); it and its vocabulary replace the models of the texts."""
    silence_probability: Annotated[float, within(above=0, below=1)] = 0.5
    """Probability of silence between two words."""
