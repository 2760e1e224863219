"""Cuts with senones (and soft targets) → pools of frames, in bounded memory.

Cuts are read in random order into pools of at most ``pool_frames`` frames, whose frames are then shuffled across
utterances (``asr_kd.train.batches``).  A pool holds every frame once: a window of 26 frames is 26 consecutive rows.

The cuts of a pool can be dealt to streams.  Processes that train one network together read one stream or more each, and
the streams do not depend on the number of processes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import prefetch
from asr_kd.corpora.copies import clean_id, shared_frames
from asr_kd.corpora.cuts import load_senones
from asr_kd.features.normalise import QUIET
from asr_kd.losses.frames import UNLABELLED
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.train.sources import Source
from asr_kd.train.targets import Targets

if TYPE_CHECKING:
    from lhotse import MonoCut


@dataclasses.dataclass(frozen=True)
class Streams:
    """The streams that the cuts of a pool are dealt to, and which of them this process reads.

    Attributes:
        count: number of streams of all processes together.
        rank, size: number of this process, and how many processes there are.
    """

    count: int = 1
    rank: int = 0
    size: int = 1

    @property
    def own(self) -> range:
        """Numbers of the streams that this process reads."""
        return range(self.rank, self.count, self.size)


@dataclasses.dataclass
class Pool:
    """Frames of several utterances.

    Attributes:
        rows: (padded frames, D) features of the utterances one after the other, each padded by its context.
        starts: (N,) row where each frame's window begins.
        left: frames of context that a window begins with.
        lengths: frames of each utterance.
        labels: (N,) int64 senones; ``UNLABELLED`` where there is no transcript.
        soft: soft targets of the frames, if a store has them.
        stream_frames: frames of every stream, including those that other processes read.
    """

    rows: Tensor
    starts: np.ndarray
    left: int
    lengths: list[int]
    labels: Tensor
    soft: TargetRows | None
    stream_frames: list[int]


class PoolReader:
    """Reads the cuts of one split into pools.

    Args:
        source: cuts that carry ``senones``, or else learn from soft targets alone.
        normaliser: reads the features of a cut, (T, D) (asr_kd.features.normalise.Normaliser).
        left, right: context frames around the labelled one.
        soft_targets: a store of soft targets, or teachers that run during training; None: labels only.
        pool_frames: frames in memory at once.  A corpus that fits into one pool is read only once.
        dtype: of the features; bfloat16 halves memory traffic where training computes in it.
        streams: which streams this process reads.

    Raises:
        UserError: too few cuts for the streams, or cuts without senones and no soft targets.
    """

    def __init__(
        self,
        source: Source,
        normaliser: Callable[[MonoCut], np.ndarray],
        left: int = 20,
        right: int = 5,
        soft_targets: Targets | None = None,
        pool_frames: int = 2_000_000,
        dtype: torch.dtype = torch.float32,
        streams: Streams = Streams(),
    ) -> None:
        self.source, self.normaliser, self.left, self.right = source, normaliser, left, right
        self.soft_targets, self.pool_frames, self.dtype, self.streams = soft_targets, pool_frames, dtype, streams
        if len(source.sizes) < streams.count:
            raise UserError(
                f"{len(source.sizes)} cuts or shards are too few for {streams.count} streams: lower --streams, or "
                "write smaller shards (asr_kd.shar --shard-frames)"
            )
        if source.unlabelled and soft_targets is None:
            raise UserError(f"{source.unlabelled} has no senones: give soft targets to learn from, or aligned cuts")
        self.frames = sum(source.sizes)
        self._only_pool: Pool | None = None

    def epoch(self, order: np.random.Generator) -> Iterator[Pool]:
        """Yield every frame once, in pools that ``order`` composes; the next pool is read while one is in use."""
        if self.frames > self.pool_frames:
            yield from prefetch(self.pools(order))
            return
        if self._only_pool is None:
            self._only_pool = self._read(range(len(self.source.sizes)))
        yield self._only_pool

    def pools(self, order: np.random.Generator) -> Iterator[Pool]:
        """Yield the pools of an epoch without reading ahead."""
        # Half the frames each: the pool in use and the next one are in memory at the same time.
        groups: list[list[int]] = [[]]
        frames = 0
        for number in order.permutation(len(self.source.sizes)):
            size = self.source.sizes[number]
            if groups[-1] and frames + size > self.pool_frames // 2:
                groups.append([])
                frames = 0
            groups[-1].append(number)
            frames += size
        if len(groups) > 1 and len(groups[-1]) < self.streams.count:
            last = groups.pop()
            groups[-1] += last
        for group in groups:
            if len(group) < self.streams.count:
                raise UserError(
                    f"{self.pool_frames} frames in memory are too few for {self.streams.count} streams: raise "
                    "--pool-frames"
                )
            yield self._read(group)

    def _read(self, group: Sequence[int]) -> Pool:
        """Read the pieces of ``group`` that are dealt to this process's streams."""
        dealt = [group[stream :: self.streams.count] for stream in range(self.streams.count)]
        rows, starts, labels, wanted = [], [], [], []
        row = 0
        for number in (number for stream in self.streams.own for number in dealt[stream]):
            for cut in self.source.read(number):
                features = self.normaliser(cut)
                shared = shared_frames(cut, len(features))
                rows.append(torch.from_numpy(_with_context(features, shared.own, self.left, self.right)).to(self.dtype))
                starts.append(np.arange(row, row + shared.count))
                labels.append(senones_or_none(cut, len(features))[shared.own])
                row += len(rows[-1])
                # A copy learns what the teachers heard in the clean recording.
                wanted.append((number, clean_id(cut), shared.total, shared.clean))
        return Pool(
            torch.cat(rows),
            np.concatenate(starts),
            self.left,
            [len(frames) for frames in starts],
            torch.from_numpy(np.concatenate(labels).astype(np.int64)),
            self._read_targets(wanted),
            [sum(self.source.sizes[number] for number in numbers) for numbers in dealt],
        )

    def _read_targets(self, wanted: Sequence[tuple[int, str, int, slice]]) -> TargetRows | None:
        """Read the soft targets of a pool's utterances, if a store has them.

        They are read in the order of the source, which mostly is that of the store, so that each of the store's shards
        is opened once and not for every utterance.  They are copied, since a range of a mapped file keeps all pages of
        it that were read in memory.

        Args:
            wanted: piece of the source, key, frames, and the frames that are wanted, of each utterance.
        """
        if self.soft_targets is None:
            return None
        found: dict[int, TargetRows] = {}
        for place in sorted(range(len(wanted)), key=lambda place: wanted[place][0]):
            _, key, total, frames = wanted[place]
            targets = self.soft_targets.read(key, total, frames.start, frames.stop)
            if targets is not None:
                found[place] = TargetRows.join([targets])
        return TargetRows.join([found[place] for place in sorted(found)]) if found else None


def _with_context(features: np.ndarray, frames: slice, left: int, right: int) -> np.ndarray:
    """Some frames of features (T, D), with those around them; what surrounds a recording is quiet."""
    first, stop = frames.start - left, frames.stop + right
    padding = (max(-first, 0), max(stop - len(features), 0))
    return np.pad(features[max(first, 0) : stop], (padding, (0, 0)), constant_values=QUIET)


def senones_or_none(cut: MonoCut, frames: int) -> np.ndarray:
    """Return the senones of a cut (T,), ``UNLABELLED`` if it has none.

    Raises:
        UserError: there are not as many as frames.
    """
    senones = load_senones(cut) if cut.has_custom("senones") else np.full(frames, UNLABELLED)
    if len(senones) != frames:
        raise UserError(f"{cut.id} has {frames} frames and {len(senones)} senones: run the alignment again")
    return senones
