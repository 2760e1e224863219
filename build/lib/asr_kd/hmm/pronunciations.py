"""Pronunciations of transcripts, and the position of each word in an aligned phone sequence."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from lhotse.cut import MonoCut

from asr_kd.lang.folder import Lang
from asr_kd.lang.lexicon import SPOKEN_NOISE, Lexicon, Probabilities, Pronunciation, cmu_dictionary, pronounce


class Pronunciations:
    """Pronunciations of any word, in the phones of a lang folder.

    Attributes:
        lang: the folder.
        phones: names of the phones, indexed by id.
    """

    def __init__(self, lang: Lang) -> None:
        self.lang = lang
        self.phones = lang.phones[: lang.real_phones[-1] + 1]

    @classmethod
    @functools.lru_cache(maxsize=1)
    def load(cls, folder: Path) -> Pronunciations:
        """Read a folder filled by python -m asr_kd.lang, once per process.

        Raises:
            UserError: the folder is missing or damaged.
        """
        return cls(Lang.load(folder))

    def lexicon(self, texts: Iterable[Sequence[str]]) -> tuple[Lexicon, Lexicon]:
        """Return the pronunciations of all words in ``texts``, and of those that had to be guessed."""
        words = sorted({word for text in texts for word in text})
        if self.lang.kind == "sentencepiece":
            return {word: [self._spell(word)] for word in words}, {}
        missing = [word for word in words if word not in self.lang.lexicon]
        guessed: Lexicon = {}
        if missing:
            phones = set(self.phones)
            english = cmu_dictionary(self.lang.case) if self.lang.guesses else {}
            candidates, _ = pronounce(missing, {**english, **self.lang.plain_lexicon}, self.lang.guesses)
            for word in missing:
                variants = map(self.lang.phones_of, candidates[word])
                guessed[word] = [variant for variant in variants if phones.issuperset(variant)]
                guessed[word] = guessed[word] or [SPOKEN_NOISE]
        return {word: guessed.get(word) or list(self.lang.lexicon[word]) for word in words}, guessed

    def words(self, cut: MonoCut) -> list[str]:
        """Return the words of a cut's transcript in normal form."""
        return self.lang.split(cut.supervisions[0].text or "")

    def probabilities(self, lexicon: Lexicon) -> Probabilities:
        """Return the probabilities of the variants of those words that the lang folder has them for."""
        return {word: self.lang.probabilities[word] for word in lexicon if word in self.lang.probabilities}

    def _spell(self, word: str) -> Pronunciation:
        """The letters of the pieces of a word."""
        return tuple(phone for piece in self.lang.units_of(word) for phone in self.lang.lexicon[piece][0])


def locate_words(
    phones: Sequence[str], words: Sequence[str], lexicon: Lexicon, silence: str = "SIL"
) -> list[tuple[int, int]]:
    """Find the words in an aligned phone sequence by backtracking over their pronunciations.

    Returns:
        (index of the first phone, index after the last phone) for each word, without silences.

    Raises:
        ValueError: the phones are not a pronunciation of the words.
    """

    def skip_silence(position: int) -> int:
        while position < len(phones) and phones[position] == silence:
            position += 1
        return position

    def match_ends(word: str, start: int) -> Iterator[int]:
        for variant in lexicon[word]:
            end = start + len(variant)
            if tuple(phones[start:end]) == tuple(variant):
                yield end

    spans: list[tuple[int, int]] = []
    untried: list[Iterator[int]] = []  # ends of each word that have not been tried yet
    position = skip_silence(0)
    while not (len(spans) == len(words) and position == len(phones)):
        if len(spans) == len(untried) and len(spans) < len(words):
            untried.append(match_ends(words[len(spans)], position))
        elif len(spans) == len(words):  # there are phones after the last word: its match is wrong
            position = spans.pop()[0]
        end = next(untried[-1], None)
        if end is None:
            untried.pop()
            if not untried:
                raise ValueError("the phones are not a pronunciation of the words")
            position = spans.pop()[0]
        else:
            spans.append((position, end))
            position = skip_silence(end)
    return spans
