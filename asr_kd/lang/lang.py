"""Language: lexicon, n-gram model, L and G; words of phones, or sentencepiece pieces of letters."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.lang.pieces import Pieces

if TYPE_CHECKING:
    import kaldifst

UNKNOWN = "<UNK>"
SILENCE = ("SIL", "SPN")


class Lang:
    """What ``python -m asr_kd.lang`` made.  Loading it needs nothing but the standard library.

    Attributes:
        path: the folder.
        kind: "phone": words pronounced in phones; "sentencepiece": pieces of words pronounced as letters.
        phones: names, index = id: <eps>, SIL, SPN, the units, then the disambiguation symbols #0, #1, ….
        words: names, index = id: <eps>, <UNK>, the words or pieces, #0, <s>, </s>.
        phone_ids, word_ids_by_name: the same the other way round.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._units = read_json(path / "units.json")
        self.kind: Literal["phone", "sentencepiece"] = self._units["kind"]
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
        """Ids of everything that is heard: silence phones and units."""
        return [i for i, phone in enumerate(self.phones) if i and not phone.startswith("#")]

    @property
    def disambiguation_phones(self) -> list[int]:
        """Ids of #0, #1, …"""
        return [i for i, phone in enumerate(self.phones) if phone.startswith("#")]

    @cached_property
    def lexicon(self) -> dict[str, list[tuple[str, ...]]]:
        """Pronunciations of every word, <UNK> (spoken noise) among them."""
        path = self.path / "lexicon.txt"
        lexicon: dict[str, list[tuple[str, ...]]] = {}
        for line in _read_lines(path):
            word, *phones = line.split()
            unknown = [phone for phone in phones if phone not in self.phone_ids]
            if unknown or not phones:
                raise UserError(f"{path} gives {word} the pronunciation {phones}: run python -m asr_kd.lang again")
            lexicon.setdefault(word, []).append(tuple(phones))
        return lexicon

    def units_of(self, word: str) -> list[str]:
        """What ``words`` has for a word of a transcript: the word, or its pieces; [<UNK>] if it has nothing."""
        if self.kind == "phone":
            return [word if word in self._vocabulary else UNKNOWN]
        return self._pieces.encode(word) or [UNKNOWN]

    def word_ids(self, text: str) -> list[int]:
        """Ids of the words, or pieces, of a transcript in upper case.

        Unknown words become <UNK> and are logged, each once; ``unknown_words`` lists them.
        """
        for word in self.unknown_words(text):
            if word not in self._reported:
                self._reported.add(word)
                logging.getLogger(__name__).warning("%s is not in the lexicon: %s stands for it", word, UNKNOWN)
        return [self.word_ids_by_name[unit] for word in text.split() for unit in self.units_of(word)]

    def unknown_words(self, text: str) -> list[str]:
        """Words of ``text`` that have no pronunciation here."""
        return [word for word in text.split() if self.units_of(word) == [UNKNOWN]]

    def text(self, ids: Iterable[int]) -> str:
        """Words, joined by blanks, of word or piece ids (a decoder's output); inverse of ``word_ids``."""
        names = [self.words[i] for i in ids]
        if self.kind == "phone":
            return " ".join(names)
        return "".join(f"▁{name}" if name == UNKNOWN else name for name in names).replace("▁", " ").strip()

    def fst(self, name: Literal["L", "L_disambig", "G"]) -> kaldifst.StdVectorFst:
        """One of the machines; L and L_disambig are sorted by output label, G by input label.

        Raises:
            UserError: its file is missing.
        """
        import kaldifst

        path = self.path / f"{name}.fst"
        if not path.is_file():
            raise UserError(f"{path} is missing: run python -m asr_kd.lang first")
        return kaldifst.StdVectorFst.read(str(path))

    @cached_property
    def _pieces(self) -> Pieces:
        return Pieces(self.path / "pieces.model", self._units["alphabet"])


def symbol_names(kind: Literal["phones", "words"], names: Iterable[str], disambiguation: int) -> list[str]:
    """The symbols of phones.txt or words.txt in the order of their ids.

    Args:
        names: the units, or the words; sorted here.
        disambiguation: the highest number of phones' disambiguation symbols.
    """
    if kind == "words":
        return ["<eps>", UNKNOWN, *sorted(set(names) - {UNKNOWN}), "#0", "<s>", "</s>"]
    return ["<eps>", *SILENCE, *sorted(set(names) - set(SILENCE)), *(f"#{i}" for i in range(disambiguation + 1))]


def symbol_table(names: Sequence[str]) -> str:
    """The text of phones.txt or words.txt."""
    return "".join(f"{name} {i}\n" for i, name in enumerate(names))


def _read_symbols(path: Path) -> list[str]:
    rows = [line.split() for line in _read_lines(path)]
    if any(len(row) != 2 or row[1] != str(i) for i, row in enumerate(rows)) or not rows:
        raise UserError(f"{path} is damaged: run python -m asr_kd.lang again")
    return [row[0] for row in rows]


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run python -m asr_kd.lang first") from None
