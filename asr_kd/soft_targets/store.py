"""The store on disk: shards of consecutive cuts, each written at once, checksummed and memory-mapped.

``store.json`` describes the store and what it was made from.  ``shard-NNNNN/`` contains, for every temperature T, the
columns of ``TargetRows`` as ``tT.COLUMN.npy``, and ``index.json``, which lists the cuts with their frames and the
checksum of each file.  ``cuts.keys.npy`` and ``cuts.places.npy`` find a cut by its id.  All arrays are memory-mapped
and few shards are open at a time, so that the memory of a reader does not depend on the size of the store.
"""

import functools
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.checksums import checksum
from asr_kd.common.errors import UserError
from asr_kd.common.storage import MARK, read_json, save_array, stage_fingerprint, write_json
from asr_kd.losses import CompactTargets
from asr_kd.soft_targets.rows import COLUMNS, TargetRows

INDEX = "index.json"
KEYS, PLACES = "cuts.keys.npy", "cuts.places.npy"
#: Shards that a reader keeps open; each takes a file descriptor per column, of the usual 1,024 per process.
MAX_OPEN_SHARDS = 64


def shard_folder(store: Path, number: int) -> Path:
    return store / f"shard-{number:05d}"


def _column(folder: Path, temperature: float, name: str) -> Path:
    return folder / f"t{temperature:g}.{name}.npy"


def write_shard(
    folder: Path,
    temperatures: Sequence[float],
    cuts: Iterable[tuple[str, Sequence[TargetRows]]],
    metadata: Mapping[str, Any],
) -> None:
    """Write one shard.

    Args:
        cuts: id of each cut, and its rows at each of ``temperatures``.
        metadata: figures for the index.

    Raises:
        UserError: two cuts have the same id.
    """
    rows: list[list[TargetRows]] = [[] for _ in temperatures]
    frames: dict[str, int] = {}
    for cut_id, parts in cuts:
        if cut_id in frames:
            raise _same_id(cut_id)
        frames[cut_id] = len(parts[0])
        for column, part in zip(rows, parts, strict=True):
            column.append(part)
    checksums = {}
    for temperature, parts in zip(temperatures, rows, strict=True):
        joined = TargetRows.join(parts)
        for name in COLUMNS:
            path = _column(folder, temperature, name)
            save_array(path, getattr(joined, name))
            checksums[path.name] = checksum(path)
    # Last: it marks the shard as complete.
    write_json(folder / INDEX, {"frames": frames, "checksums": checksums, **metadata}, sealed=True)


def write_store(folder: Path, shards: int, features: Path, teachers: Sequence[Path], **metadata: Any) -> None:
    """Finish a store whose shards are complete: write the places of its cuts, then ``store.json``.

    Args:
        features, teachers: folders that it was made from.
        metadata: num_pdfs, temperatures, mean, tail, prior, and the identity of the senones.

    Raises:
        UserError: two cuts have the same id.
    """
    _write_places(folder, shards)
    marks = {os.path.relpath(teacher, folder): stage_fingerprint(teacher) for teacher in teachers}
    checksums = {name: checksum(folder / name) for name in (KEYS, PLACES)}
    sources = {"shards": shards, "features": stage_fingerprint(features), "teachers": marks, "checksums": checksums}
    write_json(folder / "store.json", {**metadata, **sources})


def _write_places(folder: Path, shards: int) -> None:
    """Write ``KEYS``, sorted hashes of the ids (N,) uint64, and ``PLACES`` (N, 3) int64: shard, first row, frames."""
    keys, places = [], []
    for number in range(shards):
        frames = _frames_of(folder, number)
        lengths = np.fromiter(frames.values(), np.int64, len(frames))
        keys.append(np.fromiter(map(_key, frames), np.uint64, len(frames)))
        places.append(np.stack([np.full_like(lengths, number), np.cumsum(lengths) - lengths, lengths], 1))
    key, place = np.concatenate(keys), np.concatenate(places)
    order = np.argsort(key, kind="stable")
    key, place = key[order], place[order]
    if (twice := key[1:] == key[:-1]).any():
        number = int(place[1:][twice][0, 0])
        raise _same_id(next(cut for cut in _frames_of(folder, number) if _key(cut) in key[1:][twice]))
    save_array(folder / KEYS, key)
    save_array(folder / PLACES, place)


def _same_id(cut_id: str) -> UserError:
    return UserError(f"two cuts of the transfer set have the id {cut_id}: give each its own")


def _frames_of(store: Path, number: int) -> dict[str, int]:
    """Return the cuts of a shard, in order, with their frames."""
    return read_json(shard_folder(store, number) / INDEX)["frames"]


def _key(cut_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(cut_id.encode(), digest_size=8).digest(), "little")


class SoftTargets:
    """Reader of a store, with random access by cut and range of frames.

    Args:
        folder: the store.
        features: features folder that the student trains on; the store must have been made from the same.
        temperature: one of the temperatures in the store; default: the only one.

    Raises:
        UserError: the store is missing or unfinished, was made from other features, does not have the temperature, or
            its teachers have been trained again since.
    """

    def __init__(self, folder: Path, features: Path, temperature: float | None = None) -> None:
        stage_fingerprint(folder)
        self.folder = folder
        self.metadata: dict[str, Any] = read_json(folder / "store.json")
        if self.metadata["features"] != stage_fingerprint(features):
            raise UserError(f"{folder} was made from other features than {features}: run asr_kd.soft_targets again")
        for name, expected in self.metadata["teachers"].items():
            teacher = folder / name
            if (teacher / MARK).is_file() and stage_fingerprint(teacher) != expected:
                raise UserError(
                    f"{folder} was made by other teachers ({teacher.resolve().name} has changed): "
                    "run asr_kd.soft_targets again"
                )
        stored = [float(t) for t in self.metadata["temperatures"]]
        if temperature not in stored and (temperature is not None or len(stored) > 1):
            raise UserError(
                f"{folder} has soft targets at temperature {', '.join(f'{t:g}' for t in stored)}: "
                "choose one of these with --temperature, or make the store again"
            )
        self.temperature = stored[0] if temperature is None else temperature
        self.num_pdfs = int(self.metadata["num_pdfs"])
        prior = self.metadata["prior"]
        self._prior = None if prior is None else torch.tensor(prior, dtype=torch.float32)
        self._keys, self._places = self._map(KEYS), self._map(PLACES)
        self._shard = functools.lru_cache(MAX_OPEN_SHARDS)(self._open)
        self._verified: set[int] = set()

    def __iter__(self) -> Iterator[str]:
        """Yield the ids of the cuts, in the order of the store."""
        for number in range(self.metadata["shards"]):
            yield from _frames_of(self.folder, number)

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, cut_id: str) -> bool:
        return self._find(cut_id) is not None

    def read(self, cut_id: str, frames: int | None = None, start: int = 0, stop: int | None = None) -> TargetRows:
        """Return the soft targets of the frames ``start`` to ``stop`` (default: to the end) of a cut.

        Args:
            frames: expected number of frames of the cut; default: any.

        Raises:
            UserError: the store does not have the cut or has another number of frames for it, or its shard is damaged.
            ValueError: ``start`` or ``stop`` is negative, or ``start`` is beyond the end.
        """
        place = self._find(cut_id)
        if place is None:
            raise UserError(f"{self.folder} has no soft targets for {cut_id}: make the store from the same cuts")
        number, first, stored = self._places[place].tolist()
        if frames is not None and stored != frames:
            raise UserError(f"{self.folder} has {stored} frames for {cut_id}, not {frames}: make the store again")
        stop = stored if stop is None else min(stop, stored)
        if not 0 <= start <= stop:
            raise ValueError(f"frames {start} to {stop} are not frames of {cut_id}, which has {stored}")
        return self._shard(number).range(first + start, first + stop)

    def batch(self, rows: TargetRows | None, index: np.ndarray, windows: Tensor) -> CompactTargets:
        """Return the targets of the frames ``index`` (B,) of ``rows``, on the device of their ``windows``."""
        assert rows is not None
        return rows.batch(index).to(windows.device)

    def _find(self, cut_id: str) -> int | None:
        """Return the row of a cut in ``KEYS`` and ``PLACES``, if it has one."""
        key = np.uint64(_key(cut_id))
        place = int(np.searchsorted(self._keys, key))
        return place if place < len(self._keys) and self._keys[place] == key else None

    def _map(self, name: str) -> np.ndarray:
        path = self.folder / name
        try:
            if checksum(path) != self.metadata["checksums"][name]:
                raise ValueError("its checksum differs")
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path} is missing or damaged ({error}): delete it and run asr_kd.soft_targets again"
            ) from None

    def _open(self, number: int) -> TargetRows:
        folder = shard_folder(self.folder, number)
        advice = f"delete {folder} and run asr_kd.soft_targets again"
        columns = {}
        checksums = read_json(folder / INDEX)["checksums"]
        for name in COLUMNS:
            path = _column(folder, self.temperature, name)
            try:
                if number not in self._verified and checksum(path) != checksums[path.name]:
                    raise UserError(f"{path} is damaged (its checksum differs): {advice}")
                columns[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{path} is missing or damaged ({error}): {advice}") from None
        self._verified.add(number)
        return TargetRows(**columns, tail=self.metadata["tail"], prior=self._prior)
