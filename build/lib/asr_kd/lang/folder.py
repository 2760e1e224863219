"""The output folder of the lang stage: symbol tables, lexicon, L and G."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, verify
from asr_kd.common.text import Case, normalise
from asr_kd.lang.lexicon import (
    POSITIONS,
    Lexicon,
    Probabilities,
    Pronunciation,
    is_reserved,
    plain_phone,
    position_dependent,
)
from asr_kd.lang.pieces import Pieces

if TYPE_CHECKING:
    import kaldifst

UNKNOWN = "<UNK>"
SILENCE = ("SIL", "SPN")


class Lang:
    """A folder filled by ``python -m asr_kd.lang``.

    Attributes:
        path: the folder.
        case: what becomes of the letters of all text.
        guesses: whether English rules may guess the pronunciations of words outside the lexicon.
        kind: "phone": words pronounced in phones; "sentencepiece": pieces of words pronounced as letters.
        phones: names of the phones, indexed by id: <eps>, SIL, SPN, the units, the disambiguation symbols #0, #1, ….
        words: names of the words or pieces, indexed by id: <eps>, <UNK>, the words, #0, <s>, </s>.
        phone_ids, word_ids_by_name: ids of the phones and of the words.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._units = read_json(path / "units.json")
        self.kind: Literal["phone", "sentencepiece"] = self._units["kind"]
        self.case: Case = self._units["text"]
        self.guesses: bool = self._units["guesses"]
        self._positions: bool = self._units["positions"]
        self.phones = _read_symbols(path / "phones.txt")
        self.words = _read_symbols(path / "words.txt")
        self.phone_ids = {phone: i for i, phone in enumerate(self.phones)}
        self.word_ids_by_name = {word: i for i, word in enumerate(self.words)}
        self._vocabulary = frozenset(self.words[2:-3])
        self._reported: set[str] = set()

    @classmethod
    def load(cls, lang_dir: Path | str) -> Lang:
        """Read a finished folder.

        Raises:
            UserError: a file is missing or damaged.
        """
        return cls(Path(lang_dir))

    @property
    def silence_phones(self) -> list[int]:
        """Ids of SIL and SPN."""
        return [self.phone_ids[phone] for phone in SILENCE]

    @property
    def real_phones(self) -> list[int]:
        """Ids of the silence phones and the units, without <eps> and disambiguation symbols."""
        return [i for i, phone in enumerate(self.phones) if i and not phone.startswith("#")]

    @property
    def disambiguation_phones(self) -> list[int]:
        """Ids of #0, #1, …."""
        return [i for i, phone in enumerate(self.phones) if phone.startswith("#")]

    @property
    def phones_alike(self) -> list[frozenset[int]]:
        """Sets of the ids of the units that differ in their position within a word alone, or of each unit."""
        sets: dict[str, list[int]] = {}
        for i in self.real_phones:
            if self.phones[i] not in SILENCE:
                sets.setdefault(self.plain(self.phones[i]), []).append(i)
        return [frozenset(own) for own in sets.values()]

    @property
    def positions(self) -> list[frozenset[int]]:
        """Sets of the ids of the units by their position within a word; none if they do not tell it."""
        sets = ({i for i in self.real_phones if self.phones[i].endswith(mark)} for mark in POSITIONS)
        return [frozenset(own) for own in sets if own] if self._positions else []

    def phones_of(self, pronunciation: Pronunciation) -> Pronunciation:
        """A pronunciation in the phones of this folder, which may tell their position within the word."""
        return position_dependent(pronunciation) if self._positions else pronunciation

    def plain(self, phone: str) -> str:
        """A phone of this folder without its position within the word, if it tells it."""
        return plain_phone(phone) if self._positions else phone

    @property
    def plain_lexicon(self) -> Lexicon:
        """The lexicon without the positions of phones."""
        if not self._positions:
            return self.lexicon
        return {w: [tuple(map(plain_phone, variant)) for variant in variants] for w, variants in self.lexicon.items()}

    @property
    def lexicon(self) -> Lexicon:
        """Pronunciations of all words, including <UNK> (spoken noise)."""
        return self._pronunciations[0]

    @property
    def probabilities(self) -> Probabilities:
        """Probabilities of the pronunciations of ``lexicon``; empty if it has none."""
        return self._pronunciations[1]

    @cached_property
    def _pronunciations(self) -> tuple[Lexicon, Probabilities]:
        path = self.path / "lexicon.txt"
        lexicon: Lexicon = {}
        probabilities: dict[str, list[float]] = {}
        for line in _read_lines(path):
            word, *phones = line.split()
            if self._units["probabilities"]:
                probabilities.setdefault(word, []).append(float(phones.pop(0)))
            if not phones or any(phone not in self.phone_ids for phone in phones):
                raise UserError(f"{path} has an invalid pronunciation of {word}: run python -m asr_kd.lang again")
            lexicon.setdefault(word, []).append(tuple(phones))
        return lexicon, probabilities

    def split(self, text: str) -> list[str]:
        """Return the words of any text in normal form."""
        return normalise(text, self.case).split()

    def units_of(self, word: str) -> list[str]:
        """Return the entries of ``words`` for a word in normal form: the word or its pieces; [<UNK>] if unknown."""
        if self.kind == "phone":
            return [word if word in self._vocabulary else UNKNOWN]
        return [UNKNOWN] if is_reserved(word) else self._pieces.encode(word) or [UNKNOWN]

    def word_ids(self, text: str) -> list[int]:
        """Return the ids of the words, or pieces, of a transcript.

        Unknown words become <UNK>; each is logged once.
        """
        for word in self.unknown_words(text):
            if word not in self._reported:
                self._reported.add(word)
                logging.getLogger(__name__).warning("%s is not in the lexicon: it is replaced by %s", word, UNKNOWN)
        return [self.word_ids_by_name[unit] for word in self.split(text) for unit in self.units_of(word)]

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of ``text`` that are not in the vocabulary."""
        return [word for word in self.split(text) if self.units_of(word) == [UNKNOWN]]

    def text(self, ids: Iterable[int]) -> str:
        """Return the words, separated by blanks, of word or piece ids (the inverse of ``word_ids``)."""
        names = [self.words[i] for i in ids]
        if self.kind == "phone":
            return " ".join(names)
        return "".join(f"▁{name}" if name == UNKNOWN else name for name in names).replace("▁", " ").strip()

    def fst(self, name: Literal["L", "L_disambig", "G"]) -> kaldifst.StdVectorFst:
        """Read a transducer; L and L_disambig are sorted by output label, G by input label.

        Raises:
            UserError: the file is missing or damaged.
        """
        import kaldifst

        path = self.path / f"{name}.fst"
        if not path.is_file():
            raise UserError(f"{path} is missing: run python -m asr_kd.lang first")
        fst = kaldifst.StdVectorFst.read(str(verify(path)))
        if fst is None:
            raise UserError(f"{path} is damaged: delete its folder and run python -m asr_kd.lang again")
        return fst

    @cached_property
    def _pieces(self) -> Pieces:
        return Pieces(self.path / "pieces.model", self._units["alphabet"])


def symbol_names(kind: Literal["phones", "words"], names: Iterable[str], disambiguation: int) -> list[str]:
    """Return the symbols of phones.txt or words.txt in the order of their ids.

    Args:
        kind: which of the two.
        names: the units or the words, in any order.
        disambiguation: highest number of the phones' disambiguation symbols.
    """
    if kind == "words":
        return ["<eps>", UNKNOWN, *sorted(set(names) - {UNKNOWN}), "#0", "<s>", "</s>"]
    return ["<eps>", *SILENCE, *sorted(set(names) - set(SILENCE)), *(f"#{i}" for i in range(disambiguation + 1))]


def symbol_table(names: Sequence[str]) -> str:
    """Return the text of phones.txt or words.txt."""
    return "".join(f"{name} {i}\n" for i, name in enumerate(names))


def _read_symbols(path: Path) -> list[str]:
    rows = [line.split() for line in _read_lines(path)]
    if any(len(row) != 2 or row[1] != str(i) for i, row in enumerate(rows)) or not rows:
        raise UserError(f"{path} is damaged: run python -m asr_kd.lang again")
    return [row[0] for row in rows]


def _read_lines(path: Path) -> list[str]:
    try:
        return verify(path).read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run python -m asr_kd.lang first") from None
