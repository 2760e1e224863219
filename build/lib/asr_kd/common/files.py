"""Files: atomic writes, and readers that verify checksums."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from tokenize import TokenError
from types import SimpleNamespace
from typing import IO, Any, Literal

import numpy as np

from asr_kd.common.checksums import SEAL, is_sealed, seal, verify
from asr_kd.common.errors import UserError

#: What NumPy raises for a damaged .npy file: its header is a Python literal.
UNREADABLE = (OSError, ValueError, TypeError, EOFError, MemoryError, SyntaxError, TokenError)


#: Names of unfinished writes: those of ``atomic_path`` and of ``atomic_open``.
UNFINISHED = re.compile(r"\.tmp-[a-z0-9_]{8}|\..+\.[a-z0-9_]{8}")


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes were writing in a folder that belongs to this process."""
    for path in [path for path in folder.rglob(".*") if UNFINISHED.fullmatch(path.name)]:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def files_below(folder: Path) -> Iterator[Path]:
    """The files in a folder and in all folders below it, also in linked ones, each folder once."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()  # a link back to a folder above
            continue
        seen.add(real)
        folders.sort()
        yield from (Path(place, name) for name in names)


@contextlib.contextmanager
def atomic_open(path: Path | str, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file next to ``path`` for writing; rename it to ``path`` only if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        publish(Path(name), path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path of the same name; rename it to ``path`` if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        publish(temporary, path)


def publish(temporary: Path, path: Path) -> None:
    """Rename a complete file, once it is on the disk, with the mode that the umask gives, whatever wrote it."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(temporary, 0o666 & ~umask)
    os.replace(temporary, path)


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, atomically."""
    with open(verify(source), "rb") as original, atomic_open(target, "wb") as copy:
        shutil.copyfileobj(original, copy)


def write_json(path: Path | str, value: Any, sealed: bool = False) -> None:
    """Write indented JSON, atomically.

    Args:
        sealed: add the checksum of the object ``value``, for files that are read before their stage has finished.
    """
    if sealed:
        value = seal(json.loads(json.dumps(value, default=to_json)))
    with atomic_open(path) as file:
        json.dump(value, file, indent=2, default=to_json)
        file.write("\n")


def read_json(path: Path | str) -> Any:
    """The content of a JSON file, without its checksum.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        value = json.loads(verify(Path(path)).read_text(encoding="utf-8"))
        if isinstance(value, dict):
            if not is_sealed(value):
                raise ValueError("its checksum differs")
            value.pop(SEAL, None)
        return value
    except FileNotFoundError:
        raise UserError(f"{path} is missing: first run the stage that makes it") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run the stage that makes it again") from None


def save_array(path: Path | str, array: np.ndarray) -> None:
    """Write ``array`` as .npy, atomically, without pickle.

    Raises:
        UserError: it has NaN or infinite numbers.
    """
    if not all_finite(array):
        raise UserError(f"{path} would have NaN or infinite numbers: check what the stage was given, and its settings")
    with atomic_open(path, "wb") as file:
        # To a file as such NumPy writes in another way, whose error on a full disk has no number.
        np.lib.format.write_array(SimpleNamespace(write=file.write), array, allow_pickle=False)


def load_array(path: Path | str, mmap_mode: Literal["r", "c"] | None = None) -> np.ndarray:
    """The array in a .npy file.

    Args:
        mmap_mode: see ``np.load``.

    Raises:
        UserError: the file is missing or damaged, or has NaN or infinite numbers (which are not looked for in a map).
    """
    try:
        array = np.load(verify(Path(path)), mmap_mode=mmap_mode, allow_pickle=False)
        if mmap_mode is None and not all_finite(array):
            raise ValueError("it has NaN or infinite numbers")
        return array
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run the stage that makes it") from None
    except UNREADABLE as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and run its stage again") from None


def all_finite(array: np.ndarray) -> bool:
    """Whether no number is NaN or infinite."""
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def to_json(value: Any) -> Any:
    """A path, NumPy number or dataclass as JSON represents it."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
