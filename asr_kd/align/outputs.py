"""Alignments as CTM, TextGrid and JSON."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from praatio import textgrid

from asr_kd.align.aligner import Aligned, Segment
from asr_kd.align.config import Format
from asr_kd.common.storage import atomic_open, atomic_path, write_json
from asr_kd.lang.formats import ctm, escape
from asr_kd.lang.lexicon import Lexicon
from asr_kd.lang.words import Spoken

TIERS = ("words", "phones", "senones")


def write_all(results: Iterable[Aligned], out: Path, formats: Sequence[Format]) -> Iterator[Aligned]:
    """Write every alignment, and yield it.

    Args:
        results: of all recordings; those that failed are passed on alone.
        out: folder for TIER.ctm, NAME.TextGrid, NAME.json, and guessed.tsv with the words that the lexicon lacks.
        formats: which of them.
    """
    guessed: Lexicon = {}
    with contextlib.ExitStack() as stack:
        tables = [stack.enter_context(atomic_open(out / f"{tier}.ctm")) for tier in TIERS] if "ctm" in formats else []
        for aligned in results:
            if not aligned.error:
                guessed |= aligned.guessed
                for tier, table in zip(TIERS, tables, strict=False):
                    table.write(_ctm(aligned, tier))
                if "textgrid" in formats:
                    write_textgrid(aligned, out / f"{aligned.pair.name}.TextGrid")
                if "json" in formats:
                    write_json(out / f"{aligned.pair.name}.json", describe(aligned))
            yield aligned
        with atomic_open(out / "guessed.tsv") as file:
            for word in sorted(guessed):
                file.writelines(f"{word}\t{' '.join(phones)}\n" for phones in guessed[word])


def _ctm(aligned: Aligned, tier: str) -> str:
    """The segments of a tier, with their scores in the column of confidences."""
    segments: list[Segment] = getattr(aligned, tier)
    return ctm(escape(Path(aligned.pair.name)), [Spoken(s.label, s.begin, s.end, s.score) for s in segments])


def write_textgrid(aligned: Aligned, path: Path) -> None:
    """Write a TextGrid with the tiers words, phones and senones."""
    grid = textgrid.Textgrid()
    for tier in TIERS:
        segments: list[Segment] = getattr(aligned, tier)
        rows = [(round(s.begin, 2), round(s.end, 2), s.label) for s in segments]
        grid.addTier(textgrid.IntervalTier(tier, rows, 0, round(aligned.seconds, 2)))
    with atomic_path(path) as temporary:
        grid.save(str(temporary), "long_textgrid", includeBlankSpaces=True)


def describe(aligned: Aligned) -> dict[str, Any]:
    """An alignment as JSON has it."""
    rounded = {"begin": 2, "end": 2, "score": 3}
    tiers = {
        tier: [
            {name: round(value, rounded[name]) if name in rounded else value
             for name, value in dataclasses.asdict(segment).items()}
            for segment in getattr(aligned, tier)
        ]
        for tier in TIERS
    }  # fmt: skip
    return {
        "file": str(aligned.pair.audio), "text": str(aligned.pair.text), "seconds": round(aligned.seconds, 2),
        "score": round(aligned.score, 3), **tiers, "guessed": aligned.guessed,
    }  # fmt: skip
