"""What is printed of the words of a recording: JSON lines, CTM, and the subtitles SRT and WebVTT."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from asr_kd.lang.words import Spoken

#: A subtitle ends before a pause of this many seconds, and has at most this many seconds and lines of characters.
PAUSE, MAX_SECONDS = 0.8, 6.0
LINES, LINE = 2, 42


def escape(path: Path) -> str:
    r"""A path whose tabs, line ends and backslashes are \t, \n, \r and \\, so that a line has one meaning."""
    return str(path).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")


def ctm(name: str, words: Sequence[Spoken], channel: int = 1) -> str:
    r"""Lines NAME CHANNEL BEGIN DURATION WORD CONFIDENCE, with a space in the name as \s: spaces part the fields."""
    name = name.replace(" ", "\\s")
    sure = ["" if word.confidence is None else f" {word.confidence:.3f}" for word in words]
    return "".join(
        f"{name} {channel} {word.begin:.2f} {word.end - word.begin:.2f} {word.word}{confidence}\n"
        for word, confidence in zip(words, sure, strict=True)
    )


def json_line(path: Path, text: str, seconds: float | None, error: str, words: Sequence[Spoken] | None = None) -> str:
    """ASCII; bytes of a name that are no UTF-8 are the surrogates U+DC80 to U+DCFF, as in Python's os.fsdecode."""
    values: dict[str, object] = {
        "file": str(path), "words": None if error else text, "seconds": None if seconds is None else round(seconds, 3),
        "error": error or None,
    }  # fmt: skip
    if words is not None:
        values["times"] = None if error else [_rounded(word) for word in words]
    return json.dumps(values) + "\n"


def _rounded(word: Spoken) -> dict[str, object]:
    sure = None if word.confidence is None else round(word.confidence, 3)
    return word._replace(begin=round(word.begin, 2), end=round(word.end, 2), confidence=sure)._asdict()


def srt(words: Sequence[Spoken]) -> str:
    """Subtitles in the form of SubRip."""
    return "".join(
        f"{number}\n{_clock(cue[0].begin, ',')} --> {_clock(cue[-1].end, ',')}\n{_wrapped(cue)}\n\n"
        for number, cue in enumerate(cues(words), 1)
    )


def vtt(words: Sequence[Spoken]) -> str:
    """Subtitles in the form of WebVTT."""
    return "WEBVTT\n\n" + "".join(
        f"{_clock(cue[0].begin, '.')} --> {_clock(cue[-1].end, '.')}\n{html.escape(_wrapped(cue), quote=False)}\n\n"
        for cue in cues(words)
    )


def cues(words: Sequence[Spoken]) -> Iterator[list[Spoken]]:
    """The words of each subtitle."""
    cue: list[Spoken] = []
    for word in words:
        if cue and (
            word.begin - cue[-1].end >= PAUSE
            or word.end - cue[0].begin > MAX_SECONDS
            or _wrapped([*cue, word]).count("\n") >= LINES
        ):
            yield cue
            cue = []
        cue.append(word)
    if cue:
        yield cue


def _wrapped(words: Sequence[Spoken]) -> str:
    """The words in lines of at most ``LINE`` characters, unless a word is longer."""
    lines = [words[0].word]
    for word, *_ in words[1:]:
        if len(lines[-1]) + 1 + len(word) > LINE:
            lines.append(word)
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def _clock(seconds: float, point: str) -> str:
    """HH:MM:SS and milliseconds."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
