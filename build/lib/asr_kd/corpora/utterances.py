"""Utterances as corpora of every kind describe them, before anything has been checked."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asr_kd.common.text import DAMAGE, read_lines

#: Rates in Hz outside of which a header is taken to be damaged.
MIN_RATE, MAX_RATE = 4_000, 768_000
#: Rounded times may be wrong by so many seconds.
TOLERANCE = 0.01
MAX_ID = 200  # bytes: file names are made of ids
#: Characters that no file, and no line of a list, can have: control characters, and bytes that are not UTF-8.
UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True)
class Utterance:
    """An utterance: a recording, or a segment of one.

    Attributes:
        id: its name.
        text: its transcript; None if there is none.
        speaker: None if unknown.
        audio: the file of the recording; None if there is none.
        recording: the name of the recording; that of the utterance if empty.
        start: seconds.
        end: seconds; None is the end of the recording.
        channel: that of the file, from 0; None if no one has named it.
        fault: why the utterance cannot be used, if that is plain already.
    """

    id: str
    text: str | None = None
    speaker: str | None = None
    audio: Path | None = None
    recording: str = ""
    start: float = 0.0
    end: float | None = None
    channel: int | None = None
    fault: str = ""


def read_pairs(paths: Iterable[Path]) -> tuple[dict[str, tuple[str, Path]], set[str]]:
    """Lines ``ID VALUE…`` of text files: {id: (the value, the file)}, and the ids that have several lines.

    Raises:
        UserError: see ``read_lines``.
    """
    pairs: dict[str, tuple[str, Path]] = {}
    twice: set[str] = set()
    for path in paths:
        for line in read_lines(path):
            if words := line.split(maxsplit=1):
                twice |= {words[0]} & pairs.keys()
                pairs[words[0]] = (words[1].strip() if len(words) > 1 else "", path)
    return pairs, twice


def checked(utterances: Sequence[Utterance]) -> list[Utterance]:
    """The utterances; those that cannot be used, as far as that shows without their audio, with the fault.

    Of utterances with one id, the first is used; of overlapping segments of one speaker on one channel, the earlier.
    """
    faults: list[str] = []
    seen: set[str] = set()
    for utterance in utterances:
        faults.append(_fault(utterance) or ("its id occurs twice" if utterance.id in seen else ""))
        if not faults[-1]:
            seen.add(utterance.id)
    voices: dict[tuple[Path | None, int | None, str | None], list[int]] = defaultdict(list)
    for index, utterance in enumerate(utterances):
        if not faults[index]:
            voices[utterance.audio, utterance.channel, utterance.speaker].append(index)
    for indices in voices.values():
        before, end = "", -math.inf
        for index in sorted(indices, key=lambda index: utterances[index].start):
            utterance = utterances[index]
            if utterance.start < end - TOLERANCE:
                faults[index] = f"overlaps with {before} of the same speaker on the same channel"
            else:
                before, end = utterance.id, math.inf if utterance.end is None else utterance.end
    return [replace(utterance, fault=fault) for utterance, fault in zip(utterances, faults, strict=True)]


def _fault(utterance: Utterance) -> str:
    """Why an utterance cannot be used, whatever the others are."""
    end = math.inf if utterance.end is None else utterance.end
    if utterance.fault:
        return utterance.fault
    if utterance.text is None:
        return "audio without a transcript"
    if not (text := " ".join(utterance.text.split())):
        return "empty transcript"
    if found := DAMAGE.search(text) or UNWRITABLE.search(text):
        return f"its transcript has the character U+{ord(found[0]):04X}: correct it"
    if utterance.audio is None:
        return "transcript without audio"
    if not utterance.speaker:
        return "no speaker (--unknown-speakers recording takes its recording for one)"
    if not utterance.id or len(utterance.id.encode(errors="replace")) > MAX_ID:
        return f"its id is empty or longer than {MAX_ID} bytes"
    names = {"id": utterance.id, "speaker": utterance.speaker, "recording": utterance.recording}
    for what, value in (names | {"file": str(utterance.audio)}).items():
        if UNWRITABLE.search(value):
            return f"its {what} has control characters or is not UTF-8: rename it"
    if not -TOLERANCE <= utterance.start < end:  # so is NaN
        return f"no segment: from {utterance.start:g} to {end:g} s"
    return ""


def speaker_groups(counts: Counter[str], groups: int) -> list[set[str]]:
    """Disjoint groups of speakers with about the same number of utterances.

    Speakers are added in descending order of their utterances, each to the group that has the fewest.
    """
    members: list[set[str]] = [set() for _ in range(groups)]
    totals = [0] * groups
    for speaker, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        smallest = totals.index(min(totals))
        members[smallest].add(speaker)
        totals[smallest] += count
    return members
