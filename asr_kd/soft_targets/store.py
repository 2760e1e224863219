"""Reading a store of soft targets, which needs torch and NumPy alone.

All arrays are memory-mapped and few shards are open at a time, so that the memory of a reader does not depend on the
size of the store.  ``asr_kd.soft_targets.shards`` describes the files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.checksums import checksum
from asr_kd.common.errors import UserError
from asr_kd.common.storage import MARK, read_json, stage_fingerprint
from asr_kd.common.text import read_lines
from asr_kd.losses import CompactTargets
from asr_kd.soft_targets.rows import COLUMNS, TargetRows
from asr_kd.soft_targets.shards import (
    INDEX,
    KEYS,
    PLACES,
    SKIPPED,
    STORE,
    column_path,
    hash_key,
    keys_of,
    shard_folder,
)  # fmt: skip

if TYPE_CHECKING:
    from asr_kd.models.network import Chunks

#: Shards that a reader keeps open; each takes a file descriptor per column, of the usual 1,024 per process.
MAX_OPEN_SHARDS = 64


class SoftTargets:
    """Reader of a store, with random access by utterance and range of frames.

    >>> store = SoftTargets("my_store")                                                  # doctest: +SKIP
    >>> targets, lengths = collate([store.read(key) for key in keys])                    # doctest: +SKIP
    >>> loss = frame_kd_loss(logits, targets, labels, lengths=lengths, temperature=store.temperature)  # doctest: +SKIP

    Args:
        folder: the store, made by ``Writer`` or by asr_kd.soft_targets.
        features: features folder that the student trains on; if the store is bound to features, they must be these.
        temperature: one of the temperatures in the store; default: the only one.

    Attributes:
        num_classes: C.
        temperature: of the soft targets that are read.
        skipped: utterances that have no soft targets, with the reasons.

    Raises:
        UserError: the store is missing or unfinished, was made from other features, does not have the temperature, or
            its teachers have been trained again since.
    """

    def __init__(self, folder: Path | str, features: Path | None = None, temperature: float | None = None) -> None:
        self.folder = folder = Path(folder)
        self.metadata = _read_description(folder)
        self._check_sources(features)
        stored = [float(t) for t in self.metadata["temperatures"]]
        if temperature not in stored and (temperature is not None or len(stored) > 1):
            raise UserError(
                f"{folder} has soft targets at temperature {', '.join(f'{t:g}' for t in stored)}: "
                "choose one of these with --temperature, or make the store again"
            )
        self.temperature = stored[0] if temperature is None else temperature
        self.num_classes = int(self.metadata["num_classes"])
        prior = self.metadata["prior"]
        self._prior = None if prior is None else torch.tensor(prior, dtype=torch.float32)
        self._keys, self._places = (
            np.load(self._verified(name), mmap_mode="r", allow_pickle=False) for name in (KEYS, PLACES)
        )
        self.skipped = dict(line.split("\t", 1) for line in read_lines(self._verified(SKIPPED)))
        self._shard = functools.lru_cache(MAX_OPEN_SHARDS)(self._open)
        self._checked: set[int] = set()

    def __reduce__(self) -> tuple[Any, ...]:  # for the processes of a DataLoader
        return SoftTargets, (self.folder, None, self.temperature)

    def _check_sources(self, features: Path | None) -> None:
        known = self.metadata["features"]
        if features is not None and known is not None and known != stage_fingerprint(features):
            raise UserError(
                f"{self.folder} was made from other features than {features}: run asr_kd.soft_targets again"
            )
        for name, expected in self.metadata["teachers"].items():
            teacher = self.folder / name
            if (teacher / MARK).is_file() and stage_fingerprint(teacher) != expected:
                raise UserError(
                    f"{self.folder} was made by other teachers ({teacher.resolve().name} has changed): "
                    "run asr_kd.soft_targets again"
                )

    def __iter__(self) -> Iterator[str]:
        """Yield the keys of the utterances, in the order of the store."""
        return keys_of(self.folder, self.metadata["shards"])

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return self._find(key) is not None

    def fault(self, key: str, frames: int) -> str:
        """Return why an utterance was left out when the store was made; "" if it was not."""
        return self.skipped.get(key, "")

    def read(self, key: str, frames: int | None = None, start: int = 0, stop: int | None = None) -> TargetRows:
        """Return the soft targets of the frames ``start`` to ``stop`` (default: to the end) of an utterance.

        Args:
            frames: expected number of frames of the utterance; default: any.

        Raises:
            UserError: the store does not have the utterance or has another number of frames for it, or its shard is
                damaged.
            ValueError: ``start`` or ``stop`` is negative, or ``start`` is beyond the end.
        """
        place = self._find(key)
        if place is None:
            reason = f" ({self.skipped[key]})" if key in self.skipped else ""
            raise UserError(f"{self.folder} has no soft targets for {key}{reason}: make the store from the same cuts")
        number, first, stored = self._places[place].tolist()
        if frames is not None and stored != frames:
            raise UserError(f"{self.folder} has {stored} frames for {key}, not {frames}: make the store again")
        stop = stored if stop is None else min(stop, stored)
        if not 0 <= start <= stop:
            raise ValueError(f"frames {start} to {stop} are not frames of {key}, which has {stored}")
        return self._shard(number).range(first + start, first + stop)

    def batch(
        self, rows: TargetRows | None, index: np.ndarray, inputs: Tensor, chunks: Chunks | None = None
    ) -> CompactTargets:
        """Return the targets of the frames ``index`` (B,) of ``rows``, on the device of the network's ``inputs``."""
        assert rows is not None
        return rows.batch(index).to(inputs.device)

    def _find(self, key: str) -> int | None:
        """Return the row of an utterance in ``KEYS`` and ``PLACES``, if it has one."""
        number = np.uint64(hash_key(key))
        place = int(np.searchsorted(self._keys, number))
        return place if place < len(self._keys) and self._keys[place] == number else None

    def _verified(self, name: str) -> Path:
        """Return the path of a file of the store's root, after comparing its checksum."""
        path = self.folder / name
        try:
            if checksum(path) != self.metadata["checksums"][name]:
                raise ValueError("its checksum differs")
            return path
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path} is missing or damaged ({error}): delete it and run asr_kd.soft_targets again"
            ) from None

    def _open(self, number: int) -> TargetRows:
        folder = shard_folder(self.folder, number)
        advice = f"delete {folder} and run asr_kd.soft_targets again"
        columns = {}
        checksums = {} if number in self._checked else read_json(folder / INDEX)["checksums"]
        for name in COLUMNS:
            path = column_path(folder, self.temperature, name)
            try:
                if number not in self._checked and checksum(path) != checksums[path.name]:
                    raise UserError(f"{path} is damaged (its checksum differs): {advice}")
                columns[name] = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{path} is missing or damaged ({error}): {advice}") from None
        self._checked.add(number)
        return TargetRows(**columns, tail=self.metadata["tail"], prior=self._prior)


def _read_description(folder: Path) -> dict[str, Any]:
    """Return the content of ``store.json``.

    Raises:
        UserError: there is none, or the store is unfinished.
    """
    if (folder / MARK).is_file():
        stage_fingerprint(folder)  # finished, or says which stage is not
    if not (folder / STORE).is_file():
        raise UserError(f"{folder} is no store of soft targets (it has no {STORE}): check the name, or make it first")
    metadata = read_json(folder / STORE)
    try:
        if metadata["shards"] is None or shard_folder(folder, metadata["shards"]).exists():
            raise UserError(
                f"{folder} is unfinished: when all processes have written their part, call Writer.finish once, or run "
                "asr_kd.soft_targets to its end"
            )
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / STORE} is damaged or of another version ({error}): make the store again") from None
    return dict(metadata)
