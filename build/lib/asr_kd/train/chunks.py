"""Pools of frames → shuffled batches of chunks of utterances, for networks that need more than a window."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from asr_kd.features.normalise import QUIET
from asr_kd.models.network import Chunks
from asr_kd.train.augment import SpecAugment
from asr_kd.train.batches import Batch, Selection
from asr_kd.train.pools import Pool, PoolReader

#: Frames per chunk, if nothing else is asked for.
CHUNK = 128
#: Frames (0.5 s) around a chunk that a network gets in training where its context has no bound.
UNBOUNDED = 50


class ChunkLoader:
    """Batches of chunks over the frames of one split.

    Each chunk comes with the frames around it that the network sees, but only its own frames are examples.  Chunks of
    about the same length share a batch.

    Args:
        pools: reads the frames, without context.
        context: frames before and after a chunk.
        segment: chunks begin at multiples of it.
        chunk: frames per chunk; those of an utterance begin elsewhere in every epoch.
        chunks: chunks per batch of all processes.
        device: of the batches.
        select: chooses some frames by their labels, the others are only context; for a single stream.  None: all.
        augment: masks the features anew in every epoch; None: they stay as they are.
    """

    def __init__(
        self, pools: PoolReader, context: tuple[int, int], segment: int = 1, chunk: int = CHUNK, chunks: int = 16,
        device: str = "cpu", select: Selection | None = None, augment: SpecAugment | None = None,
    ) -> None:  # fmt: skip
        self.pools, self.context, self.segment, self.device = pools, context, segment, device
        self.chunk = -(-chunk // segment) * segment
        self.batch_frames, self.select, self.augment = self.chunk * chunks, select, augment

    def __len__(self) -> int:
        """Batches per epoch, about."""
        return math.ceil(self.pools.frames / self.batch_frames)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield all frames once, in an order that ``seed`` alone decides."""
        order = np.random.default_rng(seed)
        for pool in self.pools.epoch(order):
            yield from self._batches(pool if self.augment is None else self.augment(pool, order), order)

    def _batches(self, pool: Pool, order: np.random.Generator) -> Iterator[Batch]:
        chosen = None
        if self.select is not None:
            chosen = np.zeros(len(pool.labels), bool)
            chosen[self.select(pool.labels.numpy(), order)] = True
        chunks = self._cut(pool, order)
        if chosen is not None:
            chunks = chunks[[bool(chosen[start:stop].any()) for _, start, stop, _ in chunks.tolist()]]
        for group in self._deal(chunks, pool, order):
            yield self._batch(pool, group, chosen)

    def _cut(self, pool: Pool, order: np.random.Generator) -> np.ndarray:
        """The chunks of all utterances: (P, 4) first frame of the utterance, start, stop, end of the utterance."""
        rows = []
        first, shortest = 0, self.chunk // 2
        for frames in pool.lengths:
            offset = int(order.integers(self.chunk // self.segment)) * self.segment
            cuts = [at for at in range(offset, frames, self.chunk) if shortest <= at <= frames - shortest]
            bounds = [0, *cuts, frames]
            rows += [(first, first + a, first + b, first + frames) for a, b in itertools.pairwise(bounds)]
            first += frames
        return np.array(rows, np.int64).reshape(-1, 4)

    def _deal(self, chunks: np.ndarray, pool: Pool, order: np.random.Generator) -> list[np.ndarray]:
        """Groups of chunks of about the same length, as many in every process, in random order."""
        sizes = chunks[:, 2] - chunks[:, 1]
        chunks = chunks[np.lexsort((order.random(len(chunks)), sizes))]
        count = math.ceil(int(sizes.sum()) / self.batch_frames)
        if (processes := self.pools.streams.size) > 1:
            shares = [sum(pool.stream_frames[rank::processes]) for rank in range(processes)]
            # A chunk is shorter than two, so that every process has one for each batch.
            count = min(math.ceil(sum(shares) / self.batch_frames), *(share // (2 * self.chunk) for share in shares))
        count = max(1, count)
        edges = np.searchsorted(np.cumsum(np.sort(sizes)), np.arange(1, count) / count * sizes.sum())
        groups = np.split(chunks, edges)
        return [groups[number] for number in order.permutation(count) if len(groups[number])]

    def _batch(self, pool: Pool, group: np.ndarray, chosen: np.ndarray | None) -> Batch:
        begins = np.maximum(group[:, 0], group[:, 1] - self.context[0])
        ends = np.minimum(group[:, 3], group[:, 2] + self.context[1])
        longest = int((ends - begins).max())
        inputs = torch.full((len(group), longest, pool.rows.shape[1]), QUIET, dtype=pool.rows.dtype)
        for row, begin, end in zip(inputs, begins.tolist(), ends.tolist(), strict=True):
            row[: end - begin] = pool.rows[begin:end]
        index = np.concatenate([np.arange(start, stop) for _, start, stop, _ in group.tolist()])
        offsets = np.arange(len(group)) * longest - begins
        kept = index + np.repeat(offsets, group[:, 2] - group[:, 1])
        if chosen is not None:
            index, kept = index[chosen[index]], kept[chosen[index]]
        place = Chunks(self._tensor(ends - begins), self._tensor(kept))
        inputs = inputs.to(self.device)
        targets = self.pools.soft_targets
        soft = None if targets is None else targets.batch(pool.soft, index, inputs, place)
        labels = pool.labels[torch.from_numpy(index)].to(self.device)
        return Batch(inputs, labels, soft, chunks=place)

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.int64)).to(self.device)
