"""Manifests on disk: gzipped JSON lines with the same bytes each time, and lists of skipped utterances."""

from __future__ import annotations

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open

Skipped = tuple[str, str]  # utterance id, reason


@contextlib.contextmanager
def jsonl_writer(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that appends one JSON object a line to ``path`` (.jsonl.gz), which appears when the block
    succeeds.  Lhotse's own writer puts the time into the gzip header, so its bytes differ at each run."""
    with atomic_open(path, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:

        def append(item: Mapping[str, Any]) -> None:
            file.write(json.dumps(item, ensure_ascii=False).encode() + b"\n")

        yield append


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl.gz or .jsonl, one at a time.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that makes it first") from None
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run its stage again") from None


def count_lines(path: Path) -> int:
    """How many objects a .jsonl.gz has."""
    with gzip.open(path, "rb") as file:
        return sum(1 for _ in file)


def write_skipped(out: Path, split: str, skipped: Sequence[Skipped]) -> None:
    """skipped_SPLIT.tsv in ``out``: id<TAB>reason, one line an utterance (an empty file when none was)."""
    with atomic_open(out / f"skipped_{split}.tsv") as file:
        for utterance, reason in skipped:
            file.write(f"{utterance}\t{' '.join(reason.split())}\n")


def require_some(kept: int, skipped: Sequence[Skipped], split: str, out: Path) -> None:
    """Raises UserError when nothing is left of a split, naming the first reason."""
    if kept:
        return
    example = f", the first ({skipped[0][0]}) because: {skipped[0][1]}" if skipped else ""
    raise UserError(
        f"nothing usable is left for {split}: all {len(skipped)} utterances were skipped{example}; "
        f"see {out / f'skipped_{split}.tsv'} and mend the recordings"
    )
