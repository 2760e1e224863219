"""Phones with times, from CTM files and TextGrids, of all utterances."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from praatio.textgrid import openTextgrid
from praatio.utilities.errors import PraatioException

from asr_kd.common.errors import UserError
from asr_kd.common.storage import load_array, read_json, save_array, write_json
from asr_kd.common.text import read_lines
from asr_kd.lang.lexicon import plain_phone

SILENCE = "SIL"
#: Other names of silence and noise, in lower case.
SILENCE_NAMES = frozenset({"", "sil", "sp", "spn", "nsn", "pau", "<eps>", "<sil>", "<p:>", "#"})
INDEX, PHONES, SPANS = "index.json", "phones.npy", "spans.npy"
Segment = tuple[str, float, float]  # phone, start and end in seconds


@dataclass
class PhoneTimes:
    """Collects the segments of all utterances, or recordings; each takes 20 bytes.

    Attributes:
        names: phones by number; SIL is 0.
    """

    names: dict[str, int] = field(default_factory=lambda: {SILENCE: 0})
    _segments: dict[str, tuple[array[int], array[float]]] = field(default_factory=dict)

    def add(self, utterance: str, segments: Iterable[Segment]) -> None:
        """Add segments of an utterance."""
        numbers, times = self._segments.setdefault(utterance, (array("i"), array("d")))
        for phone, start, end in segments:
            numbers.append(self.names.setdefault(phone_name(phone), len(self.names)))
            times.extend((start, end))

    def __bool__(self) -> bool:
        """Whether there are segments."""
        return any(len(numbers) for numbers, _ in self._segments.values())

    def write(self, folder: Path) -> None:
        """Write all segments as arrays that are memory-mapped, and where those of an utterance are."""
        index, first = {}, 0
        for utterance, (numbers, _) in self._segments.items():
            index[utterance] = (first, first := first + len(numbers))
        write_json(folder / INDEX, index)
        parts = self._segments.values()
        save_array(folder / PHONES, np.concatenate([np.array(numbers, np.int32) for numbers, _ in parts]))
        save_array(folder / SPANS, np.concatenate([np.array(times).reshape(-1, 2) for _, times in parts]))


def read_times(folder: Path) -> tuple[dict[str, list[int]], np.ndarray, np.ndarray]:
    """Return what ``PhoneTimes.write`` has written: the rows of each utterance, phones (S,) and spans (S, 2)."""
    return read_json(folder / INDEX), load_array(folder / PHONES, "r"), load_array(folder / SPANS, "r")


def phone_name(name: str) -> str:
    """Return a phone as it is written, without Kaldi's word position; SIL for every name of silence."""
    name = plain_phone(name.strip())
    return SILENCE if name.casefold() in SILENCE_NAMES else name


def read_ctm(path: Path) -> Iterator[tuple[str, Segment]]:
    """Yield (utterance or recording, segment) of a CTM file: lines ID CHANNEL START DURATION PHONE, further columns.

    Raises:
        UserError: the file is missing or a line is no such line.
    """
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip() or line.startswith(";;"):
            continue
        try:
            utterance, _, start, duration, phone = line.split()[:5]
            begin, end = float(start), float(start) + float(duration)
            if not (0 <= begin <= end < math.inf):
                raise ValueError(line)
        except ValueError:
            raise UserError(
                f"{path}, line {number} is no line of a CTM (ID CHANNEL START DURATION PHONE, in seconds): correct it"
            ) from None
        yield utterance, (phone, begin, end)


def find_textgrids(paths: Sequence[Path]) -> list[Path]:
    """Return the TextGrids among files and in folders.

    Raises:
        UserError: there are none.
    """
    files = [file for path in paths for file in (sorted(path.rglob("*.TextGrid")) if path.is_dir() else [path])]
    if not files:
        raise UserError(f"there are no .TextGrid files in {', '.join(map(str, paths))}: check --textgrids")
    return files


def read_textgrid(path: Path, tier: str) -> list[Segment] | str:
    """Return the segments of a tier, or why there are none.

    Args:
        tier: its name; "phones" also finds "SPEAKER - phones", as the Montreal Forced Aligner names it.
    """
    try:
        grid = openTextgrid(str(path), includeEmptyIntervals=False, reportingMode="silence")
        names = [name for name in grid.tierNames if name == tier or name.endswith(f" - {tier}")]
        if len(names) != 1:
            return f"its TextGrid has {len(names)} tiers {tier}, of: {', '.join(grid.tierNames)}"
        return [(entry.label, float(entry.start), float(entry.end)) for entry in grid.getTier(names[0]).entries]
    except (PraatioException, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        return f"{path} cannot be read ({' '.join(str(error).split())[:100]})"
