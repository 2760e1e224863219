"""Transcripts as words with pronunciations: the lexicon's, and guesses for words outside it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from asr_kd.lang.lang import Lang
from asr_kd.lang.lexicon import SPOKEN_NOISE, Pronunciation, cmu_dictionary, pronounce

Lexicon = dict[str, list[Pronunciation]]


class Words:
    """Pronunciations of whatever words transcripts have, in the units of a lang folder.

    Attributes:
        phones: index = id.
    """

    def __init__(self, lang: Lang) -> None:
        self.lang = lang
        self.phones = lang.phones[: lang.real_phones[-1] + 1]

    @classmethod
    @functools.lru_cache(maxsize=1)
    def load(cls, folder: Path) -> Words:
        """Of a folder that python -m asr_kd.lang filled; a worker reads it once.

        Raises:
            UserError: the folder is missing or damaged.
        """
        return cls(Lang.load(folder))

    def lexicon(self, texts: Iterable[Sequence[str]]) -> tuple[Lexicon, Lexicon]:
        """The pronunciations of all words in ``texts``, and those among them that the lang folder lacks."""
        words = sorted({word for text in texts for word in text})
        if self.lang.kind == "sentencepiece":
            return {word: [self._spell(word)] for word in words}, {}
        missing = [word for word in words if word not in self.lang.lexicon]
        guessed: Lexicon = {}
        if missing:
            known = set(self.phones)
            found, _ = pronounce(missing, {**cmu_dictionary(), **self.lang.lexicon})
            for word in missing:
                guessed[word] = [one for one in found[word] if known.issuperset(one)] or [SPOKEN_NOISE]
        return {word: guessed.get(word) or list(self.lang.lexicon[word]) for word in words}, guessed

    def _spell(self, word: str) -> Pronunciation:
        """The letters of a word's pieces."""
        return tuple(phone for piece in self.lang.units_of(word) for phone in self.lang.lexicon[piece][0])


def locate_words(
    phones: Sequence[str], words: Sequence[str], lexicon: Lexicon, silence: str = "SIL"
) -> list[tuple[int, int]]:
    """Where each word lies in an aligned phone sequence: (first phone, one past the last), silences left out.

    Raises:
        ValueError: the phones are not a pronunciation of the words.
    """

    def skip(at: int) -> int:
        while at < len(phones) and phones[at] == silence:
            at += 1
        return at

    def matches(number: int, at: int) -> Iterator[int]:
        for one in lexicon[words[number]]:
            if tuple(phones[at : at + len(one)]) == tuple(one):
                yield at + len(one)

    found: list[tuple[int, int]] = []
    open_ends: list[Iterator[int]] = []
    at = skip(0)
    while not (len(found) == len(words) and at == len(phones)):
        if len(found) == len(open_ends) and len(found) < len(words):
            open_ends.append(matches(len(found), at))
        elif len(found) == len(words):  # phones are left over: the last word was matched wrongly
            at = found.pop()[0]
        end = next(open_ends[-1], None)
        if end is None:
            open_ends.pop()
            if not open_ends:
                raise ValueError("the phones are not a pronunciation of the words")
            at = found.pop()[0]
        else:
            found.append((at, end))
            at = skip(end)
    return found
