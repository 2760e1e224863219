"""Posteriors of teachers made elsewhere, as logits for the frames of our features."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.losses import CompactTargets, Mean, average_distributions
from asr_kd.soft_targets.config import FRAME_SHIFT, ForeignTeachers
from asr_kd.soft_targets.form import Form, PosteriorKind, as_logits, kind_of
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.soft_targets.tables import Table, open_table

if TYPE_CHECKING:
    from asr_kd.models.network import Chunks


@dataclasses.dataclass(frozen=True)
class ForeignTeacher:
    """One teacher made elsewhere.

    Attributes:
        name: where its posteriors are, for messages.
        table: the posteriors (frames, classes) of each utterance.
        kind: what they are.
        num_classes: their classes.
        shift: seconds from one of its frames to the next.
    """

    name: str
    table: Table
    kind: PosteriorKind
    num_classes: int
    shift: float = FRAME_SHIFT

    def fault(self, utterance: str, frames: int) -> str:
        """Return why the posteriors of an utterance with that many frames of features cannot be used; "" if they can.

        Their values are not read.
        """
        if utterance not in self.table:
            return f"{self.name} has no posteriors of it"
        try:
            shape = self.table.shape(utterance)
        except UserError as error:
            return str(error)
        if len(shape) != 2 or shape[1] != self.num_classes:
            return f"{self.name} has the shape {shape} for it, not (frames, {self.num_classes})"
        if (
            abs(shape[0] * self.shift - frames * FRAME_SHIFT) > max(3 * FRAME_SHIFT, 2 * self.shift) + 1e-6
            or not shape[0]
        ):
            factor = round(frames / max(shape[0], 1))
            hint = f"; if its frames are {factor * FRAME_SHIFT:g} s apart, give --teacher-shift" if factor > 1 else ""
            return (
                f"{self.name} has {shape[0]} frames of {self.shift:g} s for it, the features have {frames} of "
                f"{FRAME_SHIFT:g} s{hint}"
            )
        return ""

    def read(self, utterance: str, frames: int) -> Tensor:
        """Return the logits (frames, C) of an utterance: each frame's are those of the teacher's frame it lies in.

        Raises:
            UserError: there are none, they have another length or shape, or they are not of the declared kind.
        """
        if fault := self.fault(utterance, frames):
            raise UserError(fault)
        logits = as_logits(self.table.read(utterance), self.kind, utterance)
        if not bool(logits.logsumexp(1).isfinite().all()):
            raise UserError(f"{self.name} has posteriors of {utterance} that are not finite: make them again")
        if self.shift == FRAME_SHIFT and len(logits) == frames:
            return logits
        middles = (torch.arange(frames, dtype=torch.float64) + 0.5) * FRAME_SHIFT
        return logits[(middles / self.shift + 1e-6).long().clamp(max=len(logits) - 1)]  # 1e-6: rounding

    def subset(self, utterances: Iterable[str]) -> ForeignTeacher:
        """Return the same teacher with the posteriors of some utterances alone."""
        return dataclasses.replace(self, table=self.table.subset(utterances))


def open_teachers(flags: ForeignTeachers, utterances: Sequence[str]) -> list[ForeignTeacher]:
    """Return the teachers of --posteriors, and print what they are.

    Args:
        utterances: ids of the transfer set.

    Raises:
        UserError: a path cannot be read, has none of the utterances, or has other classes than the first one.
    """
    teachers = [_open_teacher(path, flags, utterances) for path in flags.posteriors]
    for teacher in teachers:
        if teacher.num_classes != teachers[0].num_classes:
            raise UserError(
                f"{teacher.name} has {teacher.num_classes} classes and {teachers[0].name} has "
                f"{teachers[0].num_classes}: teachers of one student must have the same"
            )
    return teachers


def _open_teacher(path: Path, flags: ForeignTeachers, utterances: Sequence[str]) -> ForeignTeacher:
    """Return a teacher, whose kind and classes the first of ``utterances`` shows that it has undamaged."""
    table = open_table(path, flags.posteriors_field)
    fault = ""
    for utterance in filter(table.__contains__, utterances):
        try:
            array = table.read(utterance)
        except UserError as error:
            fault = fault or str(error)
            continue
        if array.ndim != 2 or array.dtype.kind != "f" or array.dtype.itemsize > 8:
            raise UserError(
                f"{path} has {array.dtype} of shape {array.shape} for {utterance}: give floating-point numbers "
                "(frames, classes)"
            )
        kind, how = flags.posteriors_kind, "declared"
        if kind == "auto":
            kind, how = kind_of(array), f"recognised by {utterance}; --posteriors-kind declares it"
        print(f"{path}: {kind} ({how}) of {array.shape[1]} classes, every {flags.teacher_shift:g} s", flush=True)
        return ForeignTeacher(str(path), table, kind, array.shape[1], flags.teacher_shift)
    example = f" ({utterances[0]} and others)" if utterances else ""
    raise UserError(
        fault or f"{path} has posteriors of no utterance of the transfer set{example}: name them by the ids of cuts"
    )


class PosteriorTargets:
    """Soft targets from posteriors made elsewhere, made when they are read, with the interface of the store.

    Args:
        teachers: whose distributions are averaged.
        temperature: T > 0.
        mean: how they are averaged.
    """

    def __init__(self, teachers: Sequence[ForeignTeacher], temperature: float = 1.0, mean: Mean = "arithmetic") -> None:
        self.teachers, self.temperature = teachers, temperature
        self.num_classes = teachers[0].num_classes
        self._form = Form((temperature,), mean)

    def fault(self, key: str, frames: int) -> str:
        """Return why an utterance has no soft targets; "" if it has."""
        return next(filter(None, (teacher.fault(key, frames) for teacher in self.teachers)), "")

    def read(self, key: str, frames: int | None = None, start: int = 0, stop: int | None = None) -> TargetRows:
        """Return the soft targets of the frames ``start`` to ``stop`` of an utterance with ``frames`` frames.

        They are the same whenever they are read: what is drawn at random follows from the key.

        Raises:
            UserError: see ``ForeignTeacher.read``.
        """
        assert frames is not None
        logits = [teacher.read(key, frames) for teacher in self.teachers]
        average = average_distributions(logits, self.temperature, self._form.mean)
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        return self._form.pack(average, generator).range(start, frames if stop is None else min(stop, frames))

    def batch(
        self, rows: TargetRows | None, index: np.ndarray, inputs: Tensor, chunks: Chunks | None = None
    ) -> CompactTargets:
        """Return the targets of the frames ``index`` (B,) of ``rows``, on the device of the network's ``inputs``."""
        assert rows is not None
        return rows.batch(index).to(inputs.device)
