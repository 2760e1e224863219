"""Flags of ``python -m asr_kd.lang``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.settings import Count, Natural, NotNegative, Settings, Share, within
from asr_kd.common.text import Case


@dataclass
class Config(Settings):
    """Make the lexicon, the n-gram language model and the transducers L and G of a prepared corpus.

    The vocabulary consists of all words of the training transcripts and the frequent words of --lm-text, with
    --min-count 0 all of these and of the pronunciation lexicon.  The dev transcripts determine the interpolation
    weights of the texts' language models; OOV rate and perplexity are reported on them.
    """

    data: Path
    """Folder filled by python -m asr_kd.corpora."""
    out: Path
    """Output folder for lexicon.txt, words.txt, phones.txt, lm.arpa, L.fst, L_disambig.fst, G.fst, …"""
    lm_text: tuple[Path, ...] = ()
    """Further texts for the language model, one sentence per line, .txt or .txt.gz."""
    text: Case = "upper"
    """What becomes of the letters of all text (transcripts, lexicon, --lm-text, --arpa, hypotheses, references): upper
    case, lower case, or as they are.  In any case they are composed (NFC), U+2019 is an apostrophe, and white space of
    every kind a blank.  For Turkish, give text in lower case and lower or keep: both its i are I in upper case."""
    units: Literal["phone", "sentencepiece"] = "phone"
    """Units of the language model: words pronounced in phones, or sentencepiece pieces pronounced as letters, with
    which there are no unknown words."""
    lexicon: Path | None = None
    """Pronunciation lexicon instead of the CMU dictionary: lines WORD PHONE PHONE …, or WORD PROBABILITY PHONE PHONE …
    as in Kaldi's lexiconp.txt; WORD(2) is a variant of WORD; lines that begin with ;;;, and what follows a field #, are
    comments.  Phones are kept as they are written, tones and digits, too.  Words that it lacks are guessed only if its
    phones are the CMU dictionary's without stress; otherwise they are spoken noise."""
    remove_stress: bool = False
    """Remove 0, 1 and 2 at the end of the phones of --lexicon: the stress marks of the CMU dictionary, as in
    LibriSpeech's lexicon."""
    position_dependent: bool = False
    """Tell phones at the beginning, inside and at the end of a word, and those that are a word, from each other, as
    Kaldi does: AH_B, AH_I, AH_E, AH_S."""
    max_words: Natural = 200_000
    """Maximum size of the vocabulary; words of the transcripts are always included."""
    min_count: Natural = 2
    """Minimum number of occurrences of a word of --lm-text.  0 takes the words of the pronunciation lexicon that no
    text has, too; the language model gives each of them the same small probability."""
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
    """External language model (ARPA, also .gz); it and its vocabulary replace the models of the texts.  Its weights are
    used as they are; of homophones with the same, the one that is more frequent in the transcripts wins, by a cost of
    0.01 (natural logarithm) on each of the others."""
    silence_probability: Annotated[float, within(above=0, below=1)] = 0.5
    """Probability of silence between two words."""
