"""Checksums of files: a stage's mark lists those of its files, and who reads one of them compares.

A file whose folder has no mark, or an older one, is read as it is: strangers' files work.
"""

import functools
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.locks import LOCK

MARK = "stage.json"
#: Key of a JSON object for the checksum of its other keys.
SEAL = "checksum"
#: Folders above a file that may be its stage's: audio lies deepest.
MAX_DEPTH = 6


def checksum(path: Path) -> int:
    """The CRC-32 of a file's content."""
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def array_checksum(array: np.ndarray) -> int:
    """The CRC-32 of an array's values."""
    return zlib.crc32(np.ascontiguousarray(array).data)


def seal(value: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON object with the checksum of its content."""
    return {**value, SEAL: _content(value)}


def is_sealed(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object's checksum, if it has one, is that of its content."""
    return SEAL not in value or value[SEAL] == _content({k: v for k, v in value.items() if k != SEAL})


def _content(value: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def own_files(folder: Path) -> Iterator[str]:
    """The files of a stage's folder, as paths in it: without the mark, the lock, unfinished writes (whose names start
    with a dot) and the folders of other stages."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and not Path(root, f, MARK).is_file())
        for name in sorted(names):
            if name not in (MARK, LOCK) and not name.startswith("."):
                yield Path(root, name).relative_to(folder).as_posix()


def list_files(folder: Path, elsewhere: Sequence[str] = ()) -> dict[str, list[int]]:
    """{path in a stage's folder: [bytes, checksum]}, without the files that match the patterns ``elsewhere``."""
    names = [name for name in own_files(folder) if not any(fnmatch(name, pattern) for pattern in elsewhere)]
    return {name: [(folder / name).stat().st_size, checksum(folder / name)] for name in names}


def verify(path: Path) -> Path:
    """``path``, after comparing the file with the mark of its stage, if that lists it.

    Raises:
        UserError: the file is not what its stage wrote, or is missing though it did.
    """
    absolute = Path(os.path.abspath(path))
    for folder in absolute.parents[:MAX_DEPTH]:
        if (folder / MARK).is_file():
            stage, files = _listed(folder / MARK, _version(folder / MARK))
            expected = files.get(absolute.relative_to(folder).as_posix())
            missing = not absolute.is_file()
            if expected and (missing or _checksum_of(absolute, _version(absolute)) != expected[1]):
                fault = "is missing, which its stage wrote" if missing else "has changed since its stage finished"
                raise UserError(f"{path} {fault}: delete the folder {folder} and run that stage ({stage}) again")
            break
    return path


def _version(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@functools.lru_cache(64)
def _listed(mark: Path, version: tuple[int, int, int]) -> tuple[str, dict[str, list[int]]]:
    try:
        content = json.loads(mark.read_text(encoding="utf-8"))
        if not is_sealed(content):
            raise ValueError("its checksum differs")
        return str(content["stage"]), content.get("files", {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged_mark(mark, error) from None


@functools.lru_cache(1024)
def _checksum_of(path: Path, version: tuple[int, int, int]) -> int:
    """The checksum of a file, computed once in a process: jobs of a worker read the same networks again and again."""
    return checksum(path)


def damaged_mark(mark: Path, error: Exception) -> UserError:
    """The error for a mark that cannot be believed."""
    return UserError(f"{mark} is damaged ({error}): delete the folder {mark.parent} and run its stage again")
