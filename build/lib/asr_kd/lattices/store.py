"""Stores of lattices: shards of arcs that are memory-mapped, and an index of utterances.

lattices.json         acoustic scale, silence and senones of the lattices
SPLIT/index.json      {id: [shard, first arc, last arc + 1, frames]}
SPLIT/NNNNN.npy       arcs (asr_kd.lattices.archive.ARC) of the utterances of a shard
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.common.storage import load_array, read_json, save_array, write_json
from asr_kd.lattices.archive import read_lattices

STORE = "lattices.json"
#: Arcs of a shard (20 bytes each).
SHARD_ARCS = 2_000_000
#: Shards that a reader keeps open.
MAX_OPEN_SHARDS = 64


def store_lattices(decoded: Path, split: str, penalty: float, out: Path) -> dict[str, Any]:
    """Write the lattices of a split of a decoding; returns how many there are, with frames and arcs per frame.

    Args:
        decoded: folder with lattices_SPLIT.gz.
        penalty: the insertion penalty of the decoding.
        out: folder of the store.

    Raises:
        UserError: the archive is missing, damaged or empty.
    """
    index: dict[str, tuple[int, int, int, int]] = {}
    waiting: list[np.ndarray] = []
    shard = first = total = frames = 0
    path = decoded / f"lattices_{split}.gz"
    for name, arcs in progress(read_lattices(path, penalty), f"lattices of {split}", unit="lattice"):
        length = int(arcs["frame"][-1])
        index[name] = (shard, first, first + len(arcs), length)
        waiting.append(arcs)
        first, total, frames = first + len(arcs), total + len(arcs), frames + length
        if first >= SHARD_ARCS:
            save_array(out / split / f"{shard:05d}.npy", np.concatenate(waiting))
            waiting, shard, first = [], shard + 1, 0
    if waiting:
        save_array(out / split / f"{shard:05d}.npy", np.concatenate(waiting))
    if not index:
        raise UserError(f"{path} has no lattices: decode that split with --lattices again")
    write_json(out / split / "index.json", index)
    return {"lattices": len(index), "frames": frames, "arcs_per_frame": round(total / frames, 1)}


class LatticeStore:
    """The lattices of one split.

    Args:
        folder: the store, made by asr_kd.lattices.
        split: train or dev.

    Attributes:
        scale: acoustic scale of the decoding.

    Raises:
        UserError: the folder is no store, or has no such split.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self.folder = folder / split
        if not (folder / STORE).is_file():
            raise UserError(f"{folder} is no store of lattices: make one with python -m asr_kd.lattices")
        if not (self.folder / "index.json").is_file():
            raise UserError(f"{folder} has no lattices of {split}: decode {split} with --lattices and store them too")
        self.scale = float(read_json(folder / STORE)["acoustic_scale"])
        self.index: dict[str, list[int]] = read_json(self.folder / "index.json")
        self._shard = functools.lru_cache(MAX_OPEN_SHARDS)(self._open)

    def fault(self, key: str, frames: int) -> str:
        """Return why an utterance cannot be trained on; "" if it can."""
        if key not in self.index:
            return "it has no lattice"
        stored = self.index[key][3]
        return "" if stored == frames else f"its lattice has {stored} frames, not {frames}"

    def read(self, key: str) -> np.ndarray:
        """Return the arcs of an utterance."""
        shard, start, stop, _ = self.index[key]
        return self._shard(shard)[start:stop]

    def _open(self, number: int) -> np.ndarray:
        return load_array(self.folder / f"{number:05d}.npy", "r")
