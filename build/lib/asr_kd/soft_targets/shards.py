"""The layout of a store of soft targets, and how it is written.

``store.json`` describes the store and what it was made from.  ``shard-NNNNN/`` contains, for every temperature T, the
columns of ``TargetRows`` as ``tT.COLUMN.npy``, and ``index.json``, which lists the utterances with their frames and the
checksum of each file.  A shard is written in a folder of another name and appears at once, when it is complete.
``cuts.keys.npy`` and ``cuts.places.npy`` find an utterance by its key; ``skipped.tsv`` lists those that have no soft
targets, with the reasons.
"""

import hashlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.common.checksums import checksum
from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_open, read_json, save_array, stage_fingerprint, write_json
from asr_kd.soft_targets.rows import COLUMNS, TargetRows

STORE, INDEX = "store.json", "index.json"
KEYS, PLACES, SKIPPED = "cuts.keys.npy", "cuts.places.npy", "skipped.tsv"


def shard_folder(store: Path, number: int) -> Path:
    return store / f"shard-{number:05d}"


def column_path(folder: Path, temperature: float, name: str) -> Path:
    return folder / f"t{temperature:g}.{name}.npy"


def read_index(store: Path, number: int) -> dict[str, Any]:
    """Return the index of a shard; its keys are in the order of the rows."""
    return dict(read_json(shard_folder(store, number) / INDEX))


def count_shards(store: Path) -> int:
    """Return the number of shards that a store has, finished or not."""
    return sum(1 for _ in store.glob("shard-*"))


def write_shard(
    folder: Path | None,
    temperatures: Sequence[float],
    cuts: Iterable[tuple[str, Sequence[TargetRows]]],
    metadata: Mapping[str, Any],
    store: Path | None = None,
) -> None:
    """Write one shard.

    Args:
        folder: of the shard; None: the next free number in ``store``, also if other processes write there.
        cuts: key of each utterance, and its rows at each of ``temperatures``.
        metadata: figures for the index.

    Raises:
        UserError: two utterances have the same key.
    """
    rows: list[list[TargetRows]] = [[] for _ in temperatures]
    frames: dict[str, int] = {}
    for key, parts in cuts:
        if key in frames:
            raise same_key(key)
        frames[key] = len(parts[0])
        for column, part in zip(rows, parts, strict=True):
            column.append(part)
    store = (store or Path()) if folder is None else folder.parent
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=store, prefix=".tmp-") as temporary:
        work = Path(temporary) / "shard"
        checksums = {}
        for temperature, parts in zip(temperatures, rows, strict=True):
            for name, dtype in COLUMNS.items():
                path = column_path(work, temperature, name)
                save_array(path, np.concatenate([np.zeros(0, dtype), *(getattr(part, name) for part in parts)]))
                checksums[path.name] = checksum(path)
        write_json(work / INDEX, {"frames": frames, "checksums": checksums, **metadata}, sealed=True)
        if folder is None:
            _append(work, store)
        else:
            shutil.rmtree(folder, ignore_errors=True)
            os.rename(work, folder)


def _append(work: Path, store: Path) -> None:
    """Give a complete shard the next free number."""
    for number in itertools.count(count_shards(store)):
        try:
            os.rename(work, shard_folder(store, number))
            return
        except OSError:  # another process has taken it
            if not shard_folder(store, number).is_dir():
                raise


def write_store(
    folder: Path, shards: int, features: Path | None, teachers: Sequence[Path], **metadata: Any
) -> list[tuple[str, str]]:
    """Finish a store whose shards are complete: write the places of its utterances, then ``store.json``.

    Args:
        features, teachers: folders of stages that it was made from, if any.
        metadata: num_classes, temperatures, mean, tail, prior, and the identity of the senones.

    Returns:
        the utterances without soft targets, with the reasons.

    Raises:
        UserError: two utterances have the same key, or there are none.
    """
    keys, places, skipped = [], [], []
    for number in range(shards):
        index = read_index(folder, number)
        frames = index["frames"]
        lengths = np.fromiter(frames.values(), np.int64, len(frames))
        keys.append(np.fromiter(map(hash_key, frames), np.uint64, len(frames)))
        places.append(np.stack([np.full_like(lengths, number), np.cumsum(lengths) - lengths, lengths], 1))
        skipped += list(index.get("skipped", {}).items())
    if not any(map(len, keys)):
        first = f", the first ({skipped[0][0]}) because: {skipped[0][1]}" if skipped else ""
        raise UserError(f"{folder} would have no soft targets: all {len(skipped)} utterances were skipped{first}")
    found = np.concatenate(keys)
    _write_places(folder, found, np.concatenate(places))
    skipped = [
        (key, reason) for key, reason in skipped if np.uint64(hash_key(key)) not in found
    ]  # not in a later session
    with atomic_open(folder / SKIPPED) as file:
        file.writelines(f"{key}\t{' '.join(reason.split())}\n" for key, reason in skipped)
    marks = {os.path.relpath(teacher, folder): stage_fingerprint(teacher) for teacher in teachers}
    checksums = {name: checksum(folder / name) for name in (KEYS, PLACES, SKIPPED)}
    made_from = {"features": None if features is None else stage_fingerprint(features), "teachers": marks}
    write_json(folder / STORE, {**metadata, "shards": shards, **made_from, "checksums": checksums}, sealed=True)
    return skipped


def _write_places(folder: Path, keys: np.ndarray, places: np.ndarray) -> None:
    """Write ``KEYS``, sorted hashes of the keys (N,) uint64, and ``PLACES`` (N, 3) int64: shard, first row, frames."""
    order = np.argsort(keys, kind="stable")
    keys, places = keys[order], places[order]
    if (twice := keys[1:] == keys[:-1]).any():
        frames = read_index(folder, int(places[1:][twice][0, 0]))["frames"]
        raise same_key(next(key for key in frames if hash_key(key) in keys[1:][twice]))
    save_array(folder / KEYS, keys)
    save_array(folder / PLACES, places)


def keys_of(store: Path, shards: int) -> Iterator[str]:
    """Yield the keys of the utterances, in the order of the store."""
    for number in range(shards):
        yield from read_index(store, number)["frames"]


def hash_key(key: str) -> int:
    """Return the number by which an utterance is found."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def same_key(key: str) -> UserError:
    return UserError(f"two utterances of the transfer set have the id {key}: give each its own")
