"""Shuffled batches of context windows from pools of frames."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import prefetch
from asr_kd.corpora.copies import clean_id
from asr_kd.losses import CompactTargets
from asr_kd.losses.frames import UNLABELLED
from asr_kd.soft_targets.online import OnlineTargets
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.soft_targets.store import SoftTargets
from asr_kd.train.pools import Manifests, Selection, Source, _Pool, read_windows

if TYPE_CHECKING:
    from lhotse import MonoCut


@dataclasses.dataclass
class Batch:
    """B training examples.

    Attributes:
        windows: (B, window × D) normalised log-mels, in the loader's dtype.
        labels: (B,) int64 senones; ``UNLABELLED`` where there is no transcript.
        soft: soft targets, compact from a store or dense (B, C) float32 from teachers online; or None.
        streams: examples from each stream that this process reads, which follow one another: {stream: examples}.
        of_all: examples in the batch of all processes.
    """

    windows: Tensor
    labels: Tensor
    soft: CompactTargets | Tensor | None
    streams: Mapping[int, int] = dataclasses.field(default_factory=dict)
    of_all: int = 0


def batches_an_epoch(examples: int, batch_size: int, select: Selection | None) -> int:
    """How many batches the examples that ``select`` chooses make."""
    return -(-round(examples * (1.0 if select is None else select.kept)) // batch_size)


@dataclasses.dataclass(frozen=True)
class Streams:
    """How the frames of a pool are dealt, and which streams are this process's.

    Attributes:
        count: streams of all processes together.
        rank, size: this process's number, of so many.
    """

    count: int = 1
    rank: int = 0
    size: int = 1

    @property
    def own(self) -> range:
        return range(self.rank, self.count, self.size)


class FrameLoader:
    """Batches of context windows over the cuts of one split.

    Args:
        source: of cuts that carry ``senones``, or else learn from soft targets alone; or one manifest's path.
        normaliser: reads the features of a cut, (T, D) (asr_kd.features.normalise.Normaliser).
        left, right: context frames around the labelled one.
        batch_size: windows a batch; the last one of an epoch may be smaller.
        soft_targets: adds each frame's soft target to the batches; a store, or teachers beside the student.
        select: chooses and shuffles some frames of a pool by their labels (asr_kd.specialists.specialist); None: all.
        pool_frames: frames held at once.  A corpus that fits into one pool is read only once.
        dtype: of the windows; bfloat16 halves memory traffic where training computes in it.
        streams: which of them this process reads; more than one for networks trained without ``select``.
    """

    def __init__(
        self,
        source: Source | Path,
        normaliser: Callable[[MonoCut], np.ndarray],
        left: int = 20,
        right: int = 5,
        batch_size: int = 512,
        soft_targets: SoftTargets | OnlineTargets | None = None,
        pool_frames: int = 2_000_000,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        select: Selection | None = None,
        streams: Streams = Streams(),
    ) -> None:
        self.normaliser, self.select, self.streams = normaliser, select, streams
        self.left, self.right, self.batch_size = left, right, batch_size
        self.soft_targets, self.pool_frames, self.dtype, self.device = soft_targets, pool_frames, dtype, device
        self.source: Source = Manifests([source]) if isinstance(source, Path) else source
        if len(self.source.sizes) < streams.count:
            raise UserError(
                f"{len(self.source.sizes)} cuts or shards cannot be dealt to {streams.count} streams: give fewer "
                "--streams, or smaller shards (asr_kd.shar --shard-frames)"
            )
        if self.source.unlabelled and soft_targets is None:
            raise UserError(
                f"{self.source.unlabelled} has no senones: give soft targets to learn from, or aligned cuts"
            )
        self.frames = sum(self.source.sizes)
        self._kept: _Pool | None = None

    def __len__(self) -> int:
        """Batches an epoch (pools end with a smaller batch, so this is exact for one pool only)."""
        return batches_an_epoch(self.frames, self.batch_size, self.select)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """One pass over all frames, in an order that ``seed`` alone decides."""
        order = np.random.default_rng(seed)
        if self.frames <= self.pool_frames:
            if self._kept is None:
                self._kept = self._read(range(len(self.source.sizes)))
            yield from self._batches(self._kept, order)
            return
        for pool in prefetch(self.pools(order)):
            yield from self._batches(pool, order)

    def pools(self, order: np.random.Generator) -> Iterator[_Pool]:
        """The frames of an epoch, a pool at a time.  Used by ``epoch``, and to see how fast they are read."""
        # Two pools exist at a time: the one in use and the next, read meanwhile.
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

    def _read(self, group: Sequence[int]) -> _Pool:
        dealt = [group[stream :: self.streams.count] for stream in range(self.streams.count)]
        cuts = (cut for stream in self.streams.own for number in dealt[stream] for cut in self.source.read(number))
        rows, starts, labels, soft = [], [], [], []
        row = 0
        for cut in cuts:
            features = self.normaliser(cut)
            known = cut.has_custom("senones")
            senones = cut.load_custom("senones") if known else np.full(len(features), UNLABELLED)
            if len(senones) != len(features):
                raise UserError(
                    f"{cut.id} has {len(features)} frames and {len(senones)} senones: run the alignment again"
                )
            rows += [np.repeat(features[:1], self.left, 0), features, np.repeat(features[-1:], self.right, 0)]
            starts.append(np.arange(row, row + len(features)))
            labels.append(senones)
            row += self.left + len(features) + self.right
            if self.soft_targets is not None:
                # A noisy copy learns what teachers heard in the clean recording.
                part = self.soft_targets.read(clean_id(cut), len(features))
                soft += [] if part is None else [part]
        return _Pool(
            torch.from_numpy(np.concatenate(rows)).to(self.dtype),
            np.concatenate(starts),
            torch.from_numpy(np.concatenate(labels).astype(np.int64)),
            TargetRows.join(soft) if soft else None,
            [sum(self.source.sizes[number] for number in part) for part in dealt],
        )

    def _batches(self, pool: _Pool, order: np.random.Generator) -> Iterator[Batch]:
        windows = read_windows(pool.rows.to(self.device), self.left + 1 + self.right)
        for chosen in self._choices(pool, order):
            index = np.concatenate(list(chosen.by_stream.values()))
            inputs = windows(pool.starts[index])
            labels = pool.labels[torch.from_numpy(index)].to(self.device)
            targets = self.soft_targets
            soft = None if targets is None else targets.batch(pool.soft, index, inputs)
            streams = {stream: len(frames) for stream, frames in chosen.by_stream.items()}
            yield Batch(inputs, labels, soft, streams, chosen.of_all)

    def _choices(self, pool: _Pool, order: np.random.Generator) -> Iterator[_Choice]:
        """Which of the pool's frames make each batch: as many of every stream as it has, of all batches alike."""
        frames, orders = pool.frames, [order] if self.streams.count == 1 else order.spawn(self.streams.count)
        every, first = {}, 0
        for stream in self.streams.own:
            labels = pool.labels[first : first + frames[stream]].numpy()
            chosen = orders[stream].permutation(len(labels)) if self.select is None else self.select(labels, order)
            every[stream] = first + chosen
            first += frames[stream]
        if self.select is not None:
            frames = [len(every[0])]
        # Never a batch without a frame of some stream: its process would have nothing to do.
        count = max(1, min(-(-sum(frames) // self.batch_size), *frames))
        for number in range(count):
            ends = [(n * number // count, n * (number + 1) // count) for n in frames]
            by_stream = {stream: every[stream][slice(*ends[stream])] for stream in every}
            yield _Choice(by_stream, sum(end - begin for begin, end in ends))


@dataclasses.dataclass(frozen=True)
class _Choice:
    by_stream: Mapping[int, np.ndarray]  # indices into the pool
    of_all: int  # frames in the batch of all processes
