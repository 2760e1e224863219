"""Kaldi's tables of matrices: where each lies in its archive, its shape, and its values.

kaldiio reads the matrices.  Its functions for whole tables are not used, since they also run the commands in script
files and unpickle objects.
"""

import contextlib
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from kaldiio.matio import read_matrix_or_vector, read_token

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open
from asr_kd.corpora.manifests import DAMAGED

#: Bytes of a value of each kind of matrix; compressed ones have a header of 16 bytes, and CM one of 8 for each column.
VALUE_BYTES = {"FM": 4, "DM": 8, "CM": 1, "CM2": 2, "CM3": 1}
UNREADABLE = (*DAMAGED, struct.error, MemoryError, RuntimeError)


class Entry(NamedTuple):
    """Where a matrix lies."""

    archive: str
    offset: int


def script_entries(path: Path) -> Iterator[tuple[str, Entry]]:
    """Yield the entries of a script file (.scp); commands in it are never run.

    Raises:
        UserError: the file is missing or damaged, or has a command or a part of a matrix.
    """
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            key, location = line.split(maxsplit=1)
            location = location.strip()
            if location.endswith("|") or location.startswith("|"):
                raise UserError(f"{path} has a command ({location}): run it, and give the file that it makes")
            name, _, offset = location.rpartition(":")
            if not name or not offset.isdecimal():
                raise UserError(f"{path} has the entry {location} for {key}: only ARCHIVE:OFFSET can be read")
            yield key, Entry(name, int(offset))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: check the name") from None
    except DAMAGED as error:
        raise UserError(f"{path} is no script file ({error}): its lines must be KEY ARCHIVE:OFFSET") from None


def archive_entries(path: Path) -> Iterator[tuple[str, Entry]]:
    """Yield the entries of an archive of matrices (.ark), without reading their values.

    Raises:
        UserError: the file is missing or damaged, or has something else than binary matrices.
    """
    try:
        with open(path, "rb") as file:
            while (key := read_token(file)) is not None:
                yield key, Entry(str(path), offset := file.tell())
                _, size = _read_head(file)
                file.seek(offset + size)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: check the name") from None
    except UNREADABLE as error:
        raise UserError(f"{path} is no archive of binary matrices, or is damaged ({error}): write it again") from None


def matrix_shape(entry: Entry) -> tuple[int, int]:
    """Return the rows and columns of a matrix, without reading its values.

    Raises:
        UserError: the archive is missing or damaged.
    """
    with _opened(entry) as file:
        return _read_head(file)[0]


def read_matrix(entry: Entry) -> np.ndarray:
    """Return the values of a matrix.

    Raises:
        UserError: the archive is missing or damaged.
    """
    with _opened(entry) as file:
        _read_head(file)
        file.seek(entry.offset)
        return np.asarray(read_matrix_or_vector(file))


def write_matrices(path: Path, matrices: Mapping[str, np.ndarray]) -> None:
    """Write an archive (.ark) of binary float32 matrices."""
    with atomic_open(path, "wb") as file:
        for key, matrix in matrices.items():
            head = struct.pack("<bibi", 4, matrix.shape[0], 4, matrix.shape[1])
            file.write(key.encode() + b" \0BFM " + head + np.asarray(matrix, dtype="<f4").tobytes())


@contextlib.contextmanager
def _opened(entry: Entry) -> Iterator[IO[bytes]]:
    try:
        with open(entry.archive, "rb") as file:
            file.seek(entry.offset)
            yield file
    except FileNotFoundError:
        raise UserError(f"{entry.archive} is missing: check the paths inside the .scp") from None
    except UNREADABLE as error:
        raise UserError(f"{entry.archive} has no matrix at byte {entry.offset}, or a damaged one ({error})") from None


def _read_head(file: IO[bytes]) -> tuple[tuple[int, int], int]:
    """Return the shape of the matrix that begins here, and the bytes that it takes with its head.

    Raises:
        ValueError: there is no binary matrix, or the file is too short for it.
    """
    start = file.tell()
    if file.read(2) != b"\0B":
        raise ValueError("an entry is not binary: copy the table without ark,t")
    kind = read_token(file)
    if kind not in VALUE_BYTES:
        raise ValueError(f"an entry is a {kind!r}, not a matrix")
    if kind.startswith("CM"):
        _, _, rows, columns = struct.unpack("<ffii", file.read(16))
    else:
        rows_size, rows, columns_size, columns = struct.unpack("<bibi", file.read(10))
        if (rows_size, columns_size) != (4, 4):
            raise ValueError("a matrix has a damaged head")
    size = file.tell() - start + VALUE_BYTES[kind] * rows * columns + (8 * columns if kind == "CM" else 0)
    if rows < 0 or columns < 0 or start + size > os.fstat(file.fileno()).st_size:
        raise ValueError(f"it is too short for a matrix of {rows} × {columns}")
    return (rows, columns), size
