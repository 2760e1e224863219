"""Writing a store of soft targets, which needs torch and NumPy alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.storage import fingerprint, is_finished, read_json, write_json
from asr_kd.losses import Mean, average_distributions
from asr_kd.soft_targets.form import MAX_CLASSES, Form, Kept, PosteriorKind, as_logits
from asr_kd.soft_targets.rows import PROBABILITY, TargetRows
from asr_kd.soft_targets.shards import (
    INDEX,
    STORE,
    count_shards,
    hash_key,
    read_index,
    same_key,
    shard_folder,
    write_shard,
    write_store,
)  # fmt: skip

#: Frames after which a shard is written, and the next one begun.
SHARD_FRAMES = 500_000


class Writer:
    """Writes the soft targets of utterances, shard by shard, and finishes the store.

    >>> writer = Writer("my_store", num_classes=500, temperatures=(1.0, 2.0))            # doctest: +SKIP
    >>> for key, logits in teacher_outputs:                                              # doctest: +SKIP
    ...     if key not in writer:  # a run that was killed continues
    ...         writer.write(key, logits)
    >>> writer.finish()                                                                  # doctest: +SKIP

    Several processes, on one machine or many, may each have a Writer for one folder: every shard takes a number of its
    own when it is complete.  Each process calls ``close`` at its end, and when all have, one calls ``finish``.  Later
    sessions may add utterances, and finish again.

    Args:
        folder: of the store.
        num_classes: C, the classes of the teachers and of the student.
        temperatures, mean, floor, tail, top, draws: what is stored (``Form``).
        prior: (C,) probabilities of the classes, for ``tail="prior"``.
        seed: of the random draws.
        shard: number of the only shard that this writer writes; None: the next free ones.

    Raises:
        UserError: the folder has a store of another form or number of classes, or one that a stage has finished.
    """

    def __init__(
        self, folder: Path | str, num_classes: int, *, temperatures: Sequence[float] = Form.temperatures,
        mean: Mean = Form.mean, floor: float = Form.floor, tail: Kept = Form.tail, top: int = Form.top,
        draws: int = Form.draws, prior: Sequence[float] | None = None, seed: int = 0, shard: int | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.num_classes, self.shard = Path(folder), num_classes, shard
        self.form = Form(tuple(map(float, temperatures)), mean, floor, tail, top, draws)
        if not 0 < num_classes <= MAX_CLASSES:
            raise UserError(f"there are {num_classes} classes: the store takes teachers with 1 to 65,536")
        if (prior is None) == (tail == "prior") or (prior is not None and len(prior) != num_classes):
            raise UserError(
                f'tail="prior", and no other, needs a prior of {num_classes} classes: give one, or leave it'
            )
        self._description = self._describe(prior)
        self._generator = torch.Generator().manual_seed(seed)
        # A writer of a shard of its own does not read all others: ``finish`` finds keys that occur twice.
        complete = self.folder.glob(f"shard-*/{INDEX}") if shard is None else ()
        self._known = {hash_key(key) for path in complete for key in read_json(path)["frames"]}
        self._begin()

    def _begin(self) -> None:
        self._rows: dict[str, list[TargetRows]] = {}
        self._skipped: dict[str, str] = {}
        self._frames = 0
        self._mass, self._bytes = [0.0] * len(self.form.temperatures), [0] * len(self.form.temperatures)

    def _describe(self, prior: Sequence[float] | None) -> dict[str, object]:
        """Write ``store.json`` as that of an unfinished store, or compare with what it says."""
        if is_finished(self.folder):
            raise UserError(f"{self.folder} was made by a stage, which has finished: choose another folder to write to")
        form = dataclasses.asdict(self.form) | {"temperatures": list(self.form.temperatures)}
        form |= {"kept": self.form.tail, "tail": self.form.stored_tail}  # the second is for readers
        mine = {"num_classes": self.num_classes, **form, "prior": None if prior is None else list(map(float, prior))}
        if not (self.folder / STORE).is_file():
            write_json(self.folder / STORE, mine | {"shards": None}, sealed=True)
        there = read_json(self.folder / STORE)
        for name, value in mine.items():
            if there.get(name) != value:
                raise UserError(
                    f"{self.folder} has soft targets with {name} {there.get(name)}, not {value}: write with the same "
                    "settings, or to another folder"
                )
        return mine

    def __contains__(self, key: str) -> bool:
        """Whether an utterance is in a complete shard, or has been written here."""
        return hash_key(key) in self._known

    def write(
        self, key: str, posteriors: Tensor | np.ndarray | Sequence[Tensor | np.ndarray], kind: PosteriorKind = "logits"
    ) -> None:
        """Add an utterance; its soft targets are on disk when its shard is full, and after ``close`` or ``finish``.

        Args:
            key: name of the utterance, by which it is read.
            posteriors: (T, C) of a teacher at T = 1, or a sequence of these of several teachers, which are averaged.
            kind: logits; log-probabilities; or probabilities.

        Raises:
            UserError: the store has the key, or the posteriors have another number of classes or of frames than the
                others, are not finite, or do not sum to 1.
        """
        if key in self:
            raise same_key(key)
        if isinstance(posteriors, (Tensor, np.ndarray)):
            posteriors = [posteriors]
        logits = [as_logits(one, kind, key) for one in posteriors]
        for one in logits:
            if one.shape != (len(logits[0]), self.num_classes):
                raise UserError(
                    f"the posteriors of {key} have the shape {tuple(one.shape)}, not "
                    f"{(len(logits[0]), self.num_classes)}: all teachers must have the classes and frames of the store"
                )
        self._rows[key] = [self._pack(number, logits, key) for number in range(len(self.form.temperatures))]
        self._known.add(hash_key(key))
        self._frames += len(logits[0])
        if self.shard is None and self._frames >= SHARD_FRAMES:
            self.close()

    def _pack(self, number: int, logits: Sequence[Tensor], key: str) -> TargetRows:
        average = average_distributions(logits, self.form.temperatures[number], self.form.mean)
        if not average.sum().isfinite():
            raise UserError(
                f"the posteriors of {key} are not finite: the features or a network that they come from are damaged; "
                "make the features again, or train the networks again with a lower learning rate"
            )
        rows = self.form.pack(average, self._generator)
        self._mass[number] += len(average) - float(PROBABILITY[rows.tails].sum(dtype=np.float64))
        self._bytes[number] += rows.nbytes
        return rows

    def skip(self, key: str, reason: str) -> None:
        """List an utterance that has no soft targets, in skipped.tsv of the finished store."""
        self._skipped[key] = reason

    def close(self) -> None:
        """Write what is in memory to a shard; nothing if there is nothing.

        Raises:
            UserError: the only shard of this writer is complete already.
        """
        if self._rows or self._skipped:
            folder = None if self.shard is None else shard_folder(self.folder, self.shard)
            if folder is not None and (folder / INDEX).is_file():
                raise UserError(f"{folder} is complete: give another number, or none, to write more")
            figures = {
                "form": fingerprint(self._description), "mass": self._mass, "bytes": self._bytes,
                "skipped": self._skipped,
            }  # fmt: skip
            write_shard(folder, self.form.temperatures, self._rows.items(), figures, self.folder)
            self._begin()

    def finish(
        self, features: Path | None = None, teachers: Sequence[Path] = (), senones: str = "", shards: int | None = None
    ) -> dict[str, str]:
        """Write what is in memory and make a store of all shards; returns the utterances without soft targets.

        Args:
            features, teachers: folders of stages that the store is bound to, if any: a reader refuses others.
            senones: identity of the classes, if it is known (``asr_kd.models.senones``).
            shards: how many there must be; default: as many as there are.

        Raises:
            UserError: two utterances have the same key, or there are none, or a shard is missing or has another form.
        """
        self.close()
        shards = count_shards(self.folder) if shards is None else shards
        for number in range(shards):
            if read_index(self.folder, number)["form"] != fingerprint(self._description):
                raise UserError(
                    f"{shard_folder(self.folder, number) / INDEX} has soft targets of other settings: delete its "
                    "folder, and write its utterances again with the same settings"
                )
        return dict(write_store(self.folder, shards, features, teachers, **self._description, senones=senones))
