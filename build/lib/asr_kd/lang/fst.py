"""The finite-state transducers L (lexicon) and G (grammar) in the format of kaldifst."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_path
from asr_kd.lang.lexicon import Probabilities, Pronunciation
from asr_kd.lang.words import BOUNDARY

if TYPE_CHECKING:
    import kaldifst

Entry = tuple[str, Pronunciation]  # a word and one pronunciation, possibly with a disambiguation symbol at the end
TIE = 0.01  # natural logarithm; smaller costs would be lost when the graph is minimised
BETWEEN, BEFORE = 0, 1  # states of L: after a word, and before a word but after the optional silence


def disambiguate(lexicon: Mapping[str, Sequence[Pronunciation]]) -> tuple[list[Entry], int]:
    """Add #1, #2, … to pronunciations that are shared by several words or are a prefix of another one.

    Returns:
        the entries in the order of the lexicon, and the highest number of a symbol (0: no symbols).
    """
    uses: dict[Pronunciation, int] = {}
    prefixes: set[Pronunciation] = set()
    for variants in lexicon.values():
        for phones in variants:
            uses[phones] = uses.get(phones, 0) + 1
            prefixes.update(phones[:n] for n in range(1, len(phones)))
    entries: list[Entry] = []
    symbols: dict[Pronunciation, int] = {}
    for word, variants in lexicon.items():
        for phones in variants:
            if uses[phones] > 1 or phones in prefixes:
                symbols[phones] = symbols.get(phones, 0) + 1
                entries.append((word, (*phones, f"#{symbols[phones]}")))
            else:
                entries.append((word, phones))
    return entries, max(symbols.values(), default=0)


def variant_costs(lexicon: Mapping[str, Sequence[object]], probabilities: Probabilities) -> list[float]:
    """Return -log p of each variant in the order of the lexicon; 0 for words without probabilities."""
    return [-math.log(p) for word, variants in lexicon.items() for p in probabilities.get(word, [1.0] * len(variants))]


def homophone_costs(lexicon: Mapping[str, Sequence[Pronunciation]], counts: Mapping[str, int]) -> list[float]:
    """Return a tiny cost of each variant, in the order of the lexicon, that lets the more frequent homophone win.

    A language model from elsewhere may give O and OH the same probability; what comes out would be chance.
    """
    alike: dict[Pronunciation, list[str]] = {}
    for word, variants in lexicon.items():
        for variant in variants:
            alike.setdefault(variant, []).append(word)
    for words in alike.values():
        words.sort(key=lambda word: -counts.get(word, 0))
    return [TIE * alike[variant].index(word) for word, variants in lexicon.items() for variant in variants]


def lexicon_fst(
    entries: Sequence[Entry],
    phones: Mapping[str, int],
    words: Mapping[str, int],
    pieces: bool,
    silence_probability: float,
    silence_symbol: str | None,
    costs: Sequence[float] = (),
) -> kaldifst.StdVectorFst:
    """Return L, from phones to words, with optional silence before each word and after the last one.

    Between words it first takes the optional silence (``BETWEEN`` → ``BEFORE``) and then a word.  There is no silence
    before pieces within a word.

    Args:
        entries: words with their pronunciations.
        phones: ids of the phones.
        words: ids of the words.
        pieces: whether the words are sentencepiece pieces.
        silence_probability: probability of silence at each position, in (0, 1).
        silence_symbol: disambiguation symbol after a silence.  With it, L also accepts #0, the back-off symbol of G;
            None gives L without disambiguation, for training.
        costs: costs of the entries (see ``variant_costs``); without any, all are 0.
    """
    no_silence, silence = -np.log(1 - silence_probability), -np.log(silence_probability)
    arcs: list[tuple[int, int, int, int, float]] = []
    states = 2

    def add_path(start: int, end: int, names: Sequence[str], word: int, cost: float) -> None:
        nonlocal states
        for position, name in enumerate(names):
            last = position == len(names) - 1
            target = end if last else states
            states += not last
            arcs.append((start, target, phones[name], 0 if position else word, 0.0 if position else cost))
            start = target

    arcs.append((BETWEEN, BEFORE, 0, 0, no_silence))
    add_path(BETWEEN, BEFORE, ["SIL", silence_symbol] if silence_symbol else ["SIL"], 0, silence)
    if silence_symbol:
        # Not at BEFORE: if #0 could also pass after the silence, a sentence would have two equal paths.
        arcs.append((BETWEEN, BETWEEN, phones["#0"], words["#0"], 0.0))
    for (word, names), cost in zip(entries, costs or itertools.repeat(0.0), strict=bool(costs)):
        continues = pieces and not word.startswith(BOUNDARY) and word != "<UNK>"
        add_path(BETWEEN if continues else BEFORE, BETWEEN, names, words[word], cost)
    return _compile(arcs, final=BEFORE)


def _compile(arcs: list[tuple[int, int, int, int, float]], final: int) -> kaldifst.StdVectorFst:
    import kaldifst

    lines: Iterator[str] = (f"{a} {b} {i} {o} {cost:.7g}" for a, b, i, o, cost in arcs)
    fst = kaldifst.compile("\n".join(lines) + f"\n{final} 0\n")
    kaldifst.arcsort(fst, sort_type="olabel")
    return fst


def write_fst(path: Path, fst: kaldifst.StdVectorFst) -> None:
    """Write a transducer atomically.

    Raises:
        UserError: the disk is full, or fails.
    """
    with atomic_path(path) as temporary:
        if not fst.write(str(temporary)):
            raise _not_written(path)


def _not_written(path: Path) -> UserError:
    # OpenFst does not tell why.
    return UserError(f"{path} cannot be written: free some space on its disk and run the same command again")


def grammar_fst(arpa: Path, words_txt: Path, out: Path) -> None:
    """Write G for an ARPA model, with #0 on back-off arcs, sorted by input label, restricted to ``words_txt``."""
    import kaldifst
    import kaldilm

    with atomic_path(out) as temporary:
        kaldilm.arpa2fst(
            input_arpa=str(arpa), output_fst=str(temporary), disambig_symbol="#0", read_symbol_table=str(words_txt)
        )
        if kaldifst.StdVectorFst.read(str(temporary)) is None:  # kaldilm does not tell that the disk is full
            raise _not_written(out)
