"""Manifests on disk: reproducible gzipped JSON lines, and lists of skipped utterances."""

import contextlib
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open, stage_folder, verify

Skipped = tuple[str, str]  # utterance id, reason
Item = TypeVar("Item")
#: What damaged manifests raise: in gzip, in JSON, and in Lhotse, which expects certain keys and types.
DAMAGED = (
    OSError, EOFError, zlib.error, ValueError, AssertionError, AttributeError, LookupError, TypeError, ArithmeticError,
)  # fmt: skip


@contextlib.contextmanager
def jsonl_writer(path: Path) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Yield a function that appends a JSON object to ``path`` (.jsonl.gz), which appears if the block succeeds.

    Lhotse's own writer stores the time in the gzip header, so its bytes differ from run to run.
    """
    with atomic_open(path, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:

        def append(item: Mapping[str, Any]) -> None:
            file.write(json.dumps(item, ensure_ascii=False).encode() + b"\n")

        yield append


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a .jsonl.gz or .jsonl file, one at a time.

    Raises:
        UserError: the file is missing or damaged.
    """
    return read_manifest(path, dict)


def read_manifest(path: Path, build: Callable[[dict[str, Any]], Item]) -> Iterator[Item]:
    """What ``build`` makes of the objects of a .jsonl.gz or .jsonl file, one at a time.

    Raises:
        UserError: the file is missing or damaged, or ``build`` raises an error of ``DAMAGED``.
    """
    yield from _lines(path, lambda line: build(json.loads(line)))


def count_lines(path: Path) -> int:
    """The number of objects in a .jsonl.gz or .jsonl file.

    Raises:
        UserError: the file is missing or damaged.
    """
    return sum(1 for _ in _lines(path, len))


def _lines(path: Path, read: Callable[[str], Any]) -> Iterator[Any]:
    try:
        with (gzip.open if path.suffix == ".gz" else open)(verify(path), "rt", encoding="utf-8") as file:
            yield from map(read, file)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: first run the stage that makes it") from None
    except DAMAGED as error:
        raise damaged_manifest(path, error) from None


def damaged_manifest(path: Path, error: BaseException) -> UserError:
    """What to raise when a manifest cannot be read because of ``error``."""
    advice = "delete its folder and run the stage again" if stage_folder(path) else "correct it, or make it again"
    return UserError(f"{path} is damaged ({type(error).__name__}: {error}): {advice}")


def write_skipped(out: Path, split: str, skipped: Sequence[Skipped]) -> None:
    """Write skipped_SPLIT.tsv to ``out``: id<TAB>reason, one line per utterance (an empty file if there are none)."""
    with atomic_open(out / f"skipped_{split}.tsv") as file:
        for utterance, reason in skipped:
            file.write(f"{_printable(utterance)}\t{_printable(' '.join(reason.split()))}\n")


def _printable(text: str) -> str:
    r"""A text with what cannot be printed (tabs, bytes of names that are not UTF-8) as \t, \udcff and the like."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def require_utterances(count: int, skipped: Sequence[Skipped], split: str, out: Path) -> None:
    """Raise an error that gives the first reason for skipping if no utterance of a split is left.

    Raises:
        UserError: ``count`` is 0.
    """
    if count:
        return
    example = f", the first ({skipped[0][0]}) because: {skipped[0][1]}" if skipped else ""
    raise UserError(
        f"{split} has no usable utterance: all {len(skipped)} utterances were skipped{example}; "
        f"see {out / f'skipped_{split}.tsv'} and correct the recordings"
    )
