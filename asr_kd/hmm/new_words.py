"""Words and phrases that are added to a graph after it has been compiled; needs NumPy and kaldifst alone."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import kaldifst

from asr_kd.common.errors import UserError
from asr_kd.common.files import atomic_open, read_json, write_json
from asr_kd.common.storage import copy_file, verify
from asr_kd.common.text import normalise, read_lines
from asr_kd.hmm.tree import Node
from asr_kd.hmm.word_times import PRONUNCIATIONS
from asr_kd.lang.fst import write_fst
from asr_kd.lang.lexicon import (
    POSITIONS,
    Lexicon,
    Pronunciation,
    is_reserved,
    plain_phone,
    position_dependent,
    pronounce,
)
from asr_kd.lang.words import Words

#: Of a graph, in its folder.
SLOTS = "new_words.json"


class Phrase(NamedTuple):
    """A word, or several, to be added.

    Attributes:
        words: in the normal form of the graph.
        phones: of a single word; none: those of the lexicon, or guessed.
        weight: added to the natural logarithm of its probability, which is that of the average word.
    """

    words: tuple[str, ...]
    phones: Pronunciation = ()
    weight: float = 0.0


class Added(NamedTuple):
    """What a graph has learned: names of new word ids, and pronunciations of these words."""

    names: dict[int, str]
    lexicon: Lexicon


def read_phrases(path: Path, graph: Path) -> list[Phrase]:
    """Read lines ``WORDS<TAB>PHONES<TAB>WEIGHT``, of which the last two fields may be missing.

    Raises:
        UserError: the file is missing or empty, or a line cannot be read.
    """
    case, phrases = Words(graph).case, []
    for number, line in enumerate(read_lines(path), 1):
        text, phones, weight, *more = [*(field.strip() for field in line.split("\t")), "", ""]
        if not text and not phones:
            continue
        words = tuple(normalise(text, case).split())
        try:
            value = float(weight or 0)
        except ValueError:
            value = math.nan
        fault = ""
        if len(more) > 2 or not words or not math.isfinite(value):
            fault = "a line is words, phones and a weight, separated by tabs; the last two may be missing"
        elif phones and len(words) > 1:
            fault = "give the phones of each word on a line of its own"
        elif any(map(is_reserved, words)):
            fault = "this is a name of the symbol tables, not a word"
        if fault:
            raise UserError(f"{path}, line {number} ({line.strip()}): {fault}")
        phrases.append(Phrase(words, tuple(phones.split()), value))
    if not phrases:
        raise UserError(f"{path} has no words: write one per line")
    return phrases


def extend_graph(graph: Path, words: Path, out: Path) -> None:
    """Write a folder ``out`` with the graph and the words and phrases of a file, which has no completion mark.

    Raises:
        UserError: the file or the graph is missing or damaged, or the words cannot be added.
    """
    phrases, slots = read_phrases(words, graph), Slots(graph)
    fst = kaldifst.StdVectorFst.read(str(verify(graph / "HCLG.fst")))
    if fst is None:
        raise UserError(f"{graph}/HCLG.fst is damaged: run python -m asr_kd.hmm.graph again")
    added = slots.add(fst, phrases)
    out.mkdir(parents=True)
    write_fst(out / "HCLG.fst", fst)
    names = {**slots.words.names, **added.names}
    (out / "words.txt").write_text("".join(f"{name} {i}\n" for i, name in names.items()), encoding="utf-8")
    copy_file(graph / "graph.json", out / "graph.json")
    table = read_json(graph / PRONUNCIATIONS)
    write_json(out / PRONUNCIATIONS, {**table, "lexicon": {**table["lexicon"], **added.lexicon}})


def write_slots(table: Mapping[str, Any], graph: Path) -> None:
    """Write what ``Slots`` reads: many small numbers, without blanks between them."""
    with atomic_open(graph / SLOTS) as file:
        json.dump(table, file, separators=(",", ":"))


class Slots:
    """Where a graph takes new words, and how they are pronounced there.

    Args:
        graph: folder of the graph.

    Raises:
        UserError: the graph takes none.
    """

    def __init__(self, graph: Path) -> None:
        path = graph / SLOTS
        if not path.is_file():
            raise UserError(
                f"{path} is missing: graphs of pieces need no new words; those of other tools and versions, or of "
                "phones whose states do not follow one another, take none"
            )
        self.graph, self.words, self.table = graph, Words(graph), read_json(path)
        self.ids: dict[str, int] = self.table["phones"]
        self._classes = {name: classes for names, classes in self.table["topologies"] for name in names}
        self._tree = _nodes(self.table["nodes"], self.table["sets"])[self.table["root"]]

    def add(self, fst: kaldifst.StdVectorFst, phrases: Sequence[Phrase]) -> Added:
        """Add phrases to the graph ``fst``.

        Raises:
            UserError: a word has no pronunciation, or a phone that the graph does not know.
        """
        known = {name: number for number, name in self.words.names.items()}
        lexicon = self._pronounce(phrases)
        names = dict(enumerate((word for word in lexicon if word not in known), max(self.words.names) + 1))
        known |= {name: number for number, name in names.items()}
        for gap in sorted({gap for _, _, _, gap, _, _ in self.table["begins"]}):
            paths = _Paths(fst, self, gap)
            for phrase in dict.fromkeys(phrase._replace(phones=()) for phrase in phrases):
                paths.add([(known[word], lexicon[word]) for word in phrase.words], -phrase.weight)
        return Added(names, lexicon)

    def senones(self, left: int, phone: str, right: int) -> tuple[int, ...]:
        """The pdf of each state of a phone between two others (ids).

        Raises:
            UserError: the tree does not know them.
        """
        pdfs = [self._tree.lookup((left, self.ids[phone], right, own)) for own in self._classes[phone]]
        if None in pdfs:
            raise UserError(f"{self.graph} does not know the phone {phone} in this context: use another")
        return tuple(pdf for pdf in pdfs if pdf is not None)

    def _pronounce(self, phrases: Sequence[Phrase]) -> Lexicon:
        """The pronunciations of all words of the phrases: those given, of the lexicon, or guessed."""
        known: Lexicon = {
            word: [tuple(variant) for variant in variants]
            for word, variants in read_json(self.graph / PRONUNCIATIONS)["lexicon"].items()
        }
        given: dict[str, dict[Pronunciation, None]] = {}
        for phrase in phrases:
            if phrase.phones:
                given.setdefault(phrase.words[0], {})[self._placed(phrase.phones)] = None
        words = list(dict.fromkeys(word for phrase in phrases for word in phrase.words))
        guessed = self._guess([word for word in words if word not in given and word not in known], known)
        lexicon = {word: list(given.get(word, ())) or known.get(word) or guessed[word] for word in words}
        for word, variants in lexicon.items():
            if unknown := {phone for variant in variants for phone in variant} - self.ids.keys():
                raise UserError(f"{word}: {self.graph} has no phone {min(unknown)}: use those of its lexicon")
        return lexicon

    def _guess(self, words: Sequence[str], known: Lexicon) -> Lexicon:
        if not words:
            return {}
        lexicon: Lexicon = {}
        if self.table["guesses"]:
            plain = {word: [tuple(map(self._plain, own)) for own in owns] for word, owns in known.items()}
            with contextlib.suppress(ImportError):
                lexicon, guesses = pronounce(words, plain)
                for guess in guesses:
                    if guess.source == "none":
                        del lexicon[guess.word]
        if without := next((word for word in words if word not in lexicon), None):
            raise UserError(f"{without} has no pronunciation, and none can be guessed: give its phones after a tab")
        return {word: [self._placed(phones) for phones in variants] for word, variants in lexicon.items()}

    def _placed(self, phones: Pronunciation) -> Pronunciation:
        """A pronunciation in the phones of the graph; a small lexicon may lack some in the middle of a word."""
        if not self.table["positions"]:
            return phones
        begin, inside, end, only = POSITIONS
        others = {begin: [only], inside: [begin, end, only], end: [only], only: []}
        names = []
        for name in position_dependent(phones):
            variants = [name, *(plain_phone(name) + mark for mark in others.get(name[-2:], []))]
            names.append(next((variant for variant in variants if variant in self.ids), name))
        return tuple(names)

    def _plain(self, phone: str) -> str:
        return plain_phone(phone) if self.table["positions"] else phone


@dataclasses.dataclass
class _Phone:
    """A phone of a phrase: its name, the word that begins with it or 0, and the places of the phones that may follow;
    none after the last one."""

    name: str
    word: int
    following: list[int]


class _Paths:
    """Paths of new words from the slots where they begin to those where they end."""

    def __init__(self, fst: kaldifst.StdVectorFst, slots: Slots, gap: int) -> None:
        self.fst, self.slots, self.ids = fst, slots, slots.ids
        scale, loops = slots.table["self_loop_scale"], slots.table["loops"]
        self._stay = [-scale * math.log(value) for value in loops]
        self._leave = [-scale * math.log1p(-value) for value in loops]
        self._word_cost = slots.table.get("word_cost", 0.0)  # the insertion penalty, which graphs of bundles have
        #: Phone before, or after, a new word -> state; for each first, or last, phone of a new word.
        self._begins: dict[int, dict[int, int]] = {}
        self._ends: dict[int, dict[int, int]] = {}
        for left, first, source, target, word, cost in slots.table["begins"]:
            if target == gap:
                self._arc(source, self._state(self._begins, first, left), 0, word, cost)
        for last, right, source, target, word, cost in slots.table["ends"]:
            if source == gap:
                self._arc(self._state(self._ends, last, right), target, 0, word, cost)

    def add(self, words: Sequence[tuple[int, Sequence[Pronunciation]]], cost: float) -> None:
        """Add a phrase: words, with or without pauses between them.

        Args:
            words: the id of each, and its pronunciations.
        """
        firsts, phones = self._phones(words)
        states: dict[tuple[int, int], int] = {}

        def followers(place: int) -> list[tuple[int, int]]:
            """The phones that may follow, and the state after which they come."""
            own = self.ids[phones[place].name]
            if not phones[place].following:
                return list(self._ends.get(own, {}).items())
            return [(self.ids[phones[after].name], begin(own, after)) for after in phones[place].following]

        def begin(left: int, place: int) -> int:
            """The state after a phone where another begins."""
            if (left, place) not in states:
                states[left, place] = self.fst.add_state()
                self._speak(states[left, place], left, phones[place], followers(place))
            return states[left, place]

        for place in firsts:
            alike: dict[tuple[tuple[int, ...], ...], int] = {}
            name = phones[place].name
            for left, slot in self._begins.get(self.ids[name], {}).items():
                heard = tuple(self.slots.senones(left, name, right) for right, _ in followers(place))
                if heard not in alike:
                    alike[heard] = begin(left, place)
                self._arc(slot, alike[heard], 0, 0, cost)

    def _phones(self, words: Sequence[tuple[int, Sequence[Pronunciation]]]) -> tuple[list[int], list[_Phone]]:
        """The places of the first phones, and the phones of a phrase."""
        phones: list[_Phone] = []
        firsts: list[int] = []
        ends: list[_Phone] = []
        for number, (word, variants) in enumerate(words):
            if number and self.slots.table["pause"]:
                for phone in ends:
                    phone.following.append(len(phones))
                phones.append(_Phone(self.slots.table["pause"], 0, []))
                ends.append(phones[-1])
            lasts = []
            for variant in variants:
                for phone in ends:
                    phone.following.append(len(phones))
                firsts += [] if number else [len(phones)]
                for place, name in enumerate(variant):
                    phones.append(_Phone(name, 0 if place else word, [len(phones) + 1]))
                phones[-1].following = []
                lasts.append(phones[-1])
            ends = lasts
        return firsts, phones

    def _speak(self, start: int, left: int, phone: _Phone, followers: Sequence[tuple[int, int]]) -> None:
        """Add the states of a phone, from the state ``start`` to those of the phones that follow."""
        ends: dict[tuple[int, ...], dict[int, None]] = {}
        for right, state in followers:
            ends.setdefault(self.slots.senones(left, phone.name, right), {})[state] = None
        for pdfs, after in ends.items():
            state, word, cost = start, phone.word, self._word_cost if phone.word else 0.0
            for pdf in pdfs:
                following = self.fst.add_state()
                self._arc(state, following, pdf + 1, word, cost)
                self._arc(following, following, pdf + 1, 0, self._stay[pdf])
                state, word, cost = following, 0, self._leave[pdf]
            for end in after:
                self._arc(state, end, 0, 0, cost)

    def _state(self, states: dict[int, dict[int, int]], own: int, neighbour: int) -> int:
        known = states.setdefault(own, {})
        if neighbour not in known:
            known[neighbour] = self.fst.add_state()
        return known[neighbour]

    def _arc(self, source: int, target: int, label: int, word: int, cost: float) -> None:
        self.fst.add_arc(source, kaldifst.StdArc(label, word, cost, target))


def _nodes(rows: Sequence[Sequence[object]], sets: Sequence[Sequence[int]]) -> list[Node]:
    """The nodes of a tree from ``asr_kd.hmm.graph.slots``, in which those that others refer to come first."""
    nodes: list[Node] = []

    def get(number: object) -> Node | None:
        return nodes[number] if isinstance(number, int) else None

    for kind, first, *rest in rows:
        assert isinstance(first, int)
        if kind == "leaf":
            nodes.append(Node(leaf=first))
        elif kind == "table":
            nodes.append(Node(key=first, table=tuple(map(get, rest))))
        else:
            key, yes, no = rest
            assert isinstance(key, int)
            nodes.append(Node(key=key, yes_set=frozenset(sets[first]), yes=get(yes), no=get(no)))
    return nodes
