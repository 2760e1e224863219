"""Stage ``python -m asr_kd.shar``: aligned cuts as Lhotse Shar, tar shards of features and senones.

Training reads the cuts of a manifest here and there, a file and a seek each; of shards it reads a tar of many at once,
one after the other, from a disk or from anywhere that fsspec reaches.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.corpora.cuts import chunks

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

INDEX = "shards.json"
LEAST = 64  # shards of a split, about, where it has as many cuts: so many streams can share them
FIELDS = {"cuts": ".jsonl.gz", "features": ".tar", "senones": ".tar"}


def _frames(cuts: Path, split: str) -> int:
    return int(read_json(cuts / "hmm.json").get("splits", {}).get(split, {}).get("frames", 0))


@dataclass(frozen=True)
class Job:
    """Cuts that make one shard, where it goes here, and where beyond (an address, or nothing)."""

    cuts: list[MonoCut]
    number: int
    folder: Path
    url: str


def _jobs(cuts: Iterator[MonoCut], folder: Path, url: str, frames: int) -> Iterator[Job]:
    for number, shard in enumerate(chunks(iter(cuts), frames)):
        yield Job(shard, number, folder, url)


def write_shard(job: Job) -> int:
    """Write one shard, if it is not there yet; returns its frames."""
    from lhotse.shar import SharWriter

    frames = sum(cut.num_frames for cut in job.cuts)
    done = job.folder / f"{job.number:06d}.done"
    if done.is_file():
        return frames
    job.folder.mkdir(parents=True, exist_ok=True)
    names = [_name(field, job.number) for field in FIELDS]
    with tempfile.TemporaryDirectory(dir=job.folder, prefix=".tmp-") as folder:
        fields = {field: "numpy" for field in FIELDS if field != "cuts"}
        with SharWriter(
            folder, fields, shard_size=None, shard_suffix=f".{job.number:06d}", warn_unused_fields=False
        ) as writer:
            for cut in job.cuts:
                writer.write(cut)
        for name in names:
            if job.url:
                _filesystem(job.url).put_file(f"{folder}/{name}", f"{job.url}/{name}")
            else:
                os.replace(f"{folder}/{name}", job.folder / name)
    done.touch()
    return frames


def _name(field: str, number: int) -> str:
    return f"{field}.{number:06d}{FIELDS[field]}"


def _filesystem(url: str):  # type: ignore[no-untyped-def]
    """fsspec's for an address.

    Raises:
        UserError: fsspec, or what it needs for such an address, is not installed.
    """
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)[0]
    except (ImportError, ValueError) as error:
        raise UserError(f"{url} cannot be reached: {error}") from None


class Shards:
    """A split in Shar, a shard at a time.

    Args:
        folder: of a split, written by ``main``.

    Attributes:
        sizes: frames of each shard.

    Raises:
        UserError: the list of shards is missing or damaged.
    """

    unlabelled = ""  # senones are one of the fields

    def __init__(self, folder: Path) -> None:
        about = read_json(folder / INDEX)
        self.folder, self.url, self.sizes = folder, about["url"], [int(n) for n in about["frames"]]

    def read(self, number: int) -> list[MonoCut]:
        """The cuts of one shard, their features and senones in memory.

        Raises:
            UserError: it is missing or damaged.
        """
        names = {field: _name(field, number) for field in FIELDS}
        try:
            if not self.url:
                return _read({field: self.folder / name for field, name in names.items()})
            with tempfile.TemporaryDirectory() as here:
                for name in names.values():
                    _filesystem(self.url).get_file(f"{self.url}/{name}", f"{here}/{name}")
                return _read({field: Path(here) / name for field, name in names.items()})
        except UserError:
            raise
        except Exception as error:  # whatever a disk, a network, tar, gzip or Lhotse may raise
            raise UserError(
                f"shard {number} of {self.url or self.folder} cannot be read ({type(error).__name__}: {error}): "
                "run asr_kd.shar again"
            ) from None


def _read(paths: dict[str, Path]) -> list[MonoCut]:
    from lhotse import CutSet

    return list(CutSet.from_shar(fields={field: [str(path)] for field, path in paths.items()}))
