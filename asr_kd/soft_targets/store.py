"""The store on disk: shards of consecutive cuts, each written at once, checksummed and memory-mapped.

``store.json`` says what it was made from; ``shard-NNNNN/`` holds for every temperature T the columns of
``TargetRows`` as ``tT.COLUMN.npy``, and ``index.json``: where each cut begins, and each file's checksum.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from asr_kd.losses import CompactTargets
from asr_kd.soft_targets.rows import COLUMNS, TargetRows
from asr_kd.storage import MARK, UserError, read_json, save_array, stage_fingerprint, write_json

INDEX = "index.json"


def shard_folder(store: Path, number: int) -> Path:
    return store / f"shard-{number:05d}"


def _column(folder: Path, temperature: float, name: str) -> Path:
    return folder / f"t{temperature:g}.{name}.npy"


def write_shard(
    folder: Path,
    temperatures: Sequence[float],
    cuts: Iterable[tuple[str, Sequence[TargetRows]]],
    about: Mapping[str, Any],
) -> None:
    """Write one shard.

    Args:
        cuts: cut id and its rows at each of ``temperatures``.
        about: figures to keep in the index.
    """
    rows: list[list[TargetRows]] = [[] for _ in temperatures]
    frames: dict[str, int] = {}
    for cut_id, parts in cuts:
        frames[cut_id] = len(parts[0])
        for kept, part in zip(rows, parts, strict=True):
            kept.append(part)
    checksums = {}
    for temperature, parts in zip(temperatures, rows, strict=True):
        joined = TargetRows.join(parts)
        for name in COLUMNS:
            path = _column(folder, temperature, name)
            save_array(path, getattr(joined, name))
            with open(path, "rb") as file:
                checksums[path.name] = _checksum(file)
    # Last: it marks the shard as complete.
    write_json(folder / INDEX, {"frames": frames, "checksums": checksums, **about})


class SoftTargets:
    """Reader of a store, at random by cut and range of frames.

    Args:
        folder: the store.
        features: features folder that the student trains on; the store must come from the same.
        temperature: one of the store's; may be left out if it has only one.

    Raises:
        UserError: the store is missing, unfinished, made from other features, its teachers were trained again
            since, or it lacks the temperature.
    """

    def __init__(self, folder: Path, features: Path, temperature: float | None = None) -> None:
        stage_fingerprint(folder)
        self.folder = folder
        self.meta: dict[str, Any] = read_json(folder / "store.json")
        if self.meta["features"] != stage_fingerprint(features):
            raise UserError(f"{folder} was made from other features than {features}: run asr_kd.soft_targets again")
        for name, expected in self.meta["teachers"].items():
            teacher = folder / name
            if (teacher / MARK).is_file() and stage_fingerprint(teacher) != expected:
                raise UserError(
                    f"{folder} was made by other teachers ({teacher.resolve().name} changed since): "
                    "run asr_kd.soft_targets again"
                )
        stored = [float(t) for t in self.meta["temperatures"]]
        if temperature not in stored and (temperature is not None or len(stored) > 1):
            raise UserError(
                f"{folder} has soft targets at temperature {', '.join(f'{t:g}' for t in stored)}: "
                "choose one of these with --temperature, or make the store again"
            )
        self.temperature = stored[0] if temperature is None else temperature
        self.num_pdfs = int(self.meta["num_pdfs"])
        prior = self.meta["prior"]
        self._prior = None if prior is None else torch.tensor(prior, dtype=torch.float32)
        self._shards: dict[int, TargetRows] = {}
        self._where: dict[str, tuple[int, int, int]] = {}
        for number in range(self.meta["shards"]):
            first = 0
            for cut_id, frames in read_json(shard_folder(folder, number) / INDEX)["frames"].items():
                self._where[cut_id] = (number, first, frames)
                first += frames

    def __iter__(self) -> Iterator[str]:
        """Ids of the cuts, in the order of the store."""
        return iter(self._where)

    def __len__(self) -> int:
        return len(self._where)

    def read(self, cut_id: str, frames: int | None = None, start: int = 0, stop: int | None = None) -> TargetRows:
        """Soft targets of frames ``start`` to ``stop`` (default: to the end) of one cut.

        Args:
            frames: how many the cut has, to be checked.

        Raises:
            UserError: the cut is not in the store, or has another number of frames there, or its shard is damaged.
        """
        if cut_id not in self._where:
            raise UserError(f"{self.folder} has no soft targets for {cut_id}: make the store from the same cuts")
        number, first, stored = self._where[cut_id]
        if frames is not None and stored != frames:
            raise UserError(f"{self.folder} has {stored} frames for {cut_id}, not {frames}: make the store again")
        if number not in self._shards:
            self._shards[number] = self._open(shard_folder(self.folder, number))
        stop = stored if stop is None else min(stop, stored)
        return self._shards[number].range(first + min(start, stop), first + stop)

    def batch(self, rows: TargetRows | None, index: np.ndarray, windows: Tensor) -> CompactTargets:
        """Targets of the frames ``index`` (B,) of ``rows``, on the device of their ``windows``."""
        assert rows is not None
        return rows.batch(index).to(windows.device)

    def _open(self, folder: Path) -> TargetRows:
        again = f"delete {folder} and run asr_kd.soft_targets again"
        expected = read_json(folder / INDEX)
        columns = {}
        for name in COLUMNS:
            path = _column(folder, self.temperature, name)
            try:
                with open(path, "rb") as file:
                    checksum = _checksum(file)
                if checksum != expected["checksums"][path.name]:
                    raise UserError(f"{path} is damaged (its checksum differs): {again}")
                columns[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{path} is missing or damaged ({error}): {again}") from None
        return TargetRows(**columns, tail=self.meta["tail"], prior=self._prior)


def _checksum(file: IO[bytes]) -> int:
    value = 0
    while block := file.read(1 << 22):
        value = zlib.crc32(block, value)
    return value
