"""Words of word ids, and words of text."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, verify
from asr_kd.common.text import Case, normalise
from asr_kd.features.front_end import FRAME_SHIFT

BOUNDARY = "▁"  # the first character of a sentencepiece piece that begins a word
UNKNOWN = "<UNK>"  # a whole word, also among pieces


class Spoken(NamedTuple):
    """A recognised word: where it begins and ends, in seconds, and its confidence, if it is known."""

    word: str
    begin: float
    end: float
    confidence: float | None = None


class Words:
    """Maps word ids to text by the graph's words.txt, and text to words in the normal form of the graph.

    Raises:
        UserError: words.txt is missing or damaged.
    """

    def __init__(self, graph: Path) -> None:
        self.graph, path = graph, graph / "words.txt"
        try:
            pairs = [line.split() for line in verify(path).read_text(encoding="utf-8").split("\n")[:-1]]
            self.names = {int(number): word for word, number in pairs}
        except FileNotFoundError:
            raise UserError(f"{path} is missing: run python -m asr_kd.hmm.graph first") from None
        except ValueError:
            raise UserError(f"{path} is damaged: run python -m asr_kd.hmm.graph again") from None
        # Only sentencepiece pieces have the boundary mark.
        self.pieces = any(name.startswith(BOUNDARY) for name in self.names.values())

    @cached_property
    def case(self) -> Case:
        """What becomes of the letters of text; upper case if graph.json does not tell, as of graphs made elsewhere."""
        case: Case = read_json(self.graph / "graph.json").get("text", "upper")
        return case

    def split(self, text: str) -> list[str]:
        """The words of a transcript in normal form."""
        return normalise(text, self.case).split()

    def text(self, ids: Sequence[int]) -> str:
        """The words, separated by spaces; sentencepiece pieces are joined into words."""
        names = [self.names[i] for i in ids]
        if not self.pieces:
            return " ".join(names)
        joined = "".join(f"{BOUNDARY}{name}" if name == UNKNOWN else name for name in names)
        return " ".join(joined.replace(BOUNDARY, " ").split())

    def parts(self, ids: Sequence[int]) -> list[tuple[str, slice]]:
        """Each word of ``text(ids)``, and which of the ids it is made of."""
        words: list[tuple[str, slice]] = []
        for place, name in enumerate(self.names[i] for i in ids):
            if words and self.pieces and not name.startswith(BOUNDARY) and UNKNOWN not in (name, words[-1][0]):
                words[-1] = words[-1][0] + name, slice(words[-1][1].start, place + 1)
            else:
                words.append((name, slice(place, place + 1)))
        return [(name.removeprefix(BOUNDARY), own) for name, own in words if name != BOUNDARY]

    def confidences(self, ids: Sequence[int], values: Sequence[float]) -> list[float]:
        """The confidence of each word of ``text(ids)``, given those of the ids: the lowest of a word's pieces."""
        return [min(values[own]) for _, own in self.parts(ids)]

    def spoken(self, ids: Sequence[int], times: Sequence[tuple[int, int]], values: Sequence[float]) -> list[Spoken]:
        """The words of ``text(ids)`` with their times and confidences, given those of the ids (frames)."""
        return [
            Spoken(word, times[own][0][0] * FRAME_SHIFT, times[own][-1][1] * FRAME_SHIFT, confidence)
            for (word, own), confidence in zip(self.parts(ids), self.confidences(ids, values), strict=True)
        ]
