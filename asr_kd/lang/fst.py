"""L and G as finite-state transducers in the format that kaldifst reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.common.storage import atomic_path
from asr_kd.lang.lexicon import Pronunciation

if TYPE_CHECKING:
    import kaldifst

Entry = tuple[str, Pronunciation]  # a word and one pronunciation, perhaps with a disambiguation symbol at its end
BOUNDARY = "▁"  # begins every sentencepiece piece that begins a word
BETWEEN, BEFORE = 0, 1  # states of L


def disambiguate(lexicon: Mapping[str, Sequence[Pronunciation]]) -> tuple[list[Entry], int]:
    """Add #1, #2, … to pronunciations that several words have or that begin another one.

    Returns:
        the entries in the lexicon's order, and the highest symbol's number (0: none was needed).
    """
    uses: dict[Pronunciation, int] = {}
    prefixes: set[Pronunciation] = set()
    for variants in lexicon.values():
        for phones in variants:
            uses[phones] = uses.get(phones, 0) + 1
            prefixes.update(phones[:n] for n in range(1, len(phones)))
    entries: list[Entry] = []
    given: dict[Pronunciation, int] = {}
    for word, variants in lexicon.items():
        for phones in variants:
            if uses[phones] > 1 or phones in prefixes:
                given[phones] = given.get(phones, 0) + 1
                entries.append((word, (*phones, f"#{given[phones]}")))
            else:
                entries.append((word, phones))
    return entries, max(given.values(), default=0)


def lexicon_fst(
    entries: Sequence[Entry],
    phones: Mapping[str, int],
    words: Mapping[str, int],
    pieces: bool,
    silence_probability: float,
    silence_symbol: str | None,
) -> kaldifst.StdVectorFst:
    """Phones in, words out: optional silence before each word and after the last.

    Between words the machine decides about silence (``BETWEEN`` → ``BEFORE``) and then takes a word.  Pieces
    that continue a word skip that decision.

    Args:
        pieces: the words are sentencepiece pieces.
        silence_probability: of a silence at each place, in (0, 1).
        silence_symbol: the disambiguation symbol after a silence; with it the machine also lets #0 pass, the
            back-off symbol of G; without it the machine is L as training wants it.
    """
    quiet, loud = -np.log(1 - silence_probability), -np.log(silence_probability)
    arcs: list[tuple[int, int, int, int, float]] = []
    states = 2

    def path(start: int, end: int, names: Sequence[str], word: int, cost: float) -> None:
        nonlocal states
        for position, name in enumerate(names):
            last = position == len(names) - 1
            target = end if last else states
            states += not last
            arcs.append((start, target, phones[name], 0 if position else word, 0.0 if position else cost))
            start = target

    arcs.append((BETWEEN, BEFORE, 0, 0, quiet))
    path(BETWEEN, BEFORE, ["SIL", silence_symbol] if silence_symbol else ["SIL"], 0, loud)
    if silence_symbol:
        # Only here: if #0 could also pass after the silence, one sentence would have two equal paths.
        arcs.append((BETWEEN, BETWEEN, phones["#0"], words["#0"], 0.0))
    for word, names in entries:
        continues = pieces and not word.startswith(BOUNDARY) and word != "<UNK>"
        path(BETWEEN if continues else BEFORE, BETWEEN, names, words[word], 0.0)
    return _compile(arcs, final=BEFORE)


def _compile(arcs: list[tuple[int, int, int, int, float]], final: int) -> kaldifst.StdVectorFst:
    import kaldifst

    lines: Iterator[str] = (f"{a} {b} {i} {o} {cost:.7g}" for a, b, i, o, cost in arcs)
    fst = kaldifst.compile("\n".join(lines) + f"\n{final} 0\n")
    kaldifst.arcsort(fst, sort_type="olabel")
    return fst


def write_fst(path: Path, fst: kaldifst.StdVectorFst) -> None:
    with atomic_path(path) as temporary:
        fst.write(str(temporary))


def grammar_fst(arpa: Path, words_txt: Path, out: Path) -> None:
    """G of an ARPA model: #0 on back-off arcs, sorted by input label; words missing in words.txt are left out."""
    import kaldilm

    with atomic_path(out) as temporary:
        kaldilm.arpa2fst(
            input_arpa=str(arpa), output_fst=str(temporary), disambig_symbol="#0", read_symbol_table=str(words_txt)
        )
