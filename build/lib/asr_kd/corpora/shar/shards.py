"""Writes and reads tar shards of cuts with their features and senones (Lhotse Shar).

A manifest makes training seek to and open a file per cut; from shards it reads a tar of many cuts in sequence, from a
disk or from any address that fsspec can open.
"""

import tempfile
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from lhotse import CutSet
from lhotse.cut import MonoCut
from lhotse.shar import SharWriter

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_in_order
from asr_kd.common.storage import atomic_open, publish, read_json, verify, write_json
from asr_kd.corpora.copies import shared_frames
from asr_kd.corpora.cuts import chunks, load_cuts
from asr_kd.corpora.shar.config import Config

INDEX = "shards.json"
MIN_SHARDS = 64  # per split, approximately and if it has as many cuts: at most as many streams can share them
FIELDS = {"cuts": ".jsonl.gz", "features": ".tar", "senones": ".tar"}


def write_split(config: Config, split: str, executor: Executor) -> dict[str, int]:
    """Write the shards of a split and their list; return the numbers of shards and frames.

    Raises:
        UserError: there is no such split, or fsspec cannot reach the address.
    """
    if not (config.cuts / f"cuts_{split}.jsonl.gz").is_file():
        raise UserError(f"{config.cuts} has no cuts_{split}.jsonl.gz: check --splits, or align that split")
    url = f"{config.url.rstrip('/')}/{split}" if config.url else ""
    total = int(read_json(config.cuts / "hmm.json").get("splits", {}).get(split, {}).get("frames", 0))
    size = min(config.shard_frames, -(-total // MIN_SHARDS)) or config.shard_frames
    folder = config.out.resolve() / split
    jobs = (
        Job(shard, number, folder, url)
        for number, shard in enumerate(chunks(iter(load_cuts(config.cuts, split)), size))
    )
    frames = list(run_in_order(executor, write_shard, jobs, f"shards of {split}", "shard", -(-total // size)))
    write_json(config.out / split / INDEX, {"url": url, "frames": frames})
    return {"shards": len(frames), "frames": sum(frames)}


@dataclass(frozen=True)
class Job:
    """The cuts of one shard, and where to write it: to ``url``, or to ``folder`` if there is none."""

    cuts: list[MonoCut]
    number: int
    folder: Path
    url: str


def write_shard(job: Job) -> int:
    """Write one shard, if an earlier run did not; return its number of frames to learn from."""
    frames = sum(shared_frames(cut, cut.num_frames).count for cut in job.cuts)
    done = job.folder / f"{job.number:06d}.done"
    if done.is_file():
        return frames
    job.folder.mkdir(parents=True, exist_ok=True)
    names = [_name(field, job.number) for field in FIELDS]
    with tempfile.TemporaryDirectory(dir=job.folder, prefix=".tmp-") as folder:
        fields = {field: "numpy" for field in FIELDS if field != "cuts"}
        suffix = f".{job.number:06d}"
        with SharWriter(folder, fields, shard_size=None, shard_suffix=suffix, warn_unused_fields=False) as writer:
            for cut in job.cuts:
                writer.write(cut)
        with open(Path(folder, names[0]), "r+b") as file:  # gzip's date, which would differ from run to run
            file.seek(4)
            file.write(bytes(4))
        for name in names:
            if job.url:
                _filesystem(job.url).put_file(f"{folder}/{name}", f"{job.url}/{name}")
            else:
                publish(Path(folder, name), job.folder / name)
    with atomic_open(done):
        pass
    return frames


def _name(field: str, number: int) -> str:
    return f"{field}.{number:06d}{FIELDS[field]}"


def _filesystem(url: str):  # type: ignore[no-untyped-def]
    """fsspec's file system for an address.

    Raises:
        UserError: fsspec, or a package that it needs for this address, is not installed.
    """
    try:
        import fsspec

        return fsspec.core.url_to_fs(url)[0]
    except (ImportError, ValueError) as error:
        raise UserError(f"{url} cannot be reached: {error}") from None


class Shards:
    """Reads a split shard by shard.

    Args:
        folder: the split's folder, with its list of shards.

    Attributes:
        sizes: number of frames of each shard.

    Raises:
        UserError: the list of shards is missing or damaged.
    """

    unlabelled = ""  # senones are one of the fields

    def __init__(self, folder: Path) -> None:
        index = read_json(folder / INDEX)
        self.folder, self.url, self.sizes = folder, index["url"], [int(n) for n in index["frames"]]

    def read(self, number: int) -> list[MonoCut]:
        """The cuts of one shard, with features and senones in memory.

        Raises:
            UserError: the shard is missing or damaged.
        """
        names = {field: _name(field, number) for field in FIELDS}
        try:
            if not self.url:
                return _read({field: verify(self.folder / name) for field, name in names.items()})
            with tempfile.TemporaryDirectory() as copy:
                for name in names.values():
                    _filesystem(self.url).get_file(f"{self.url}/{name}", f"{copy}/{name}")
                return _read({field: Path(copy) / name for field, name in names.items()})
        except UserError:
            raise
        except Exception as error:  # of a disk, a network, tar, gzip or Lhotse
            raise UserError(
                f"shard {number} of {self.url or self.folder} cannot be read ({type(error).__name__}: {error}): "
                "run asr_kd.shar again"
            ) from None


def _read(paths: dict[str, Path]) -> list[MonoCut]:
    return list(CutSet.from_shar(fields={field: [str(path)] for field, path in paths.items()}))
