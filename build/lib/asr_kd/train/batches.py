"""Pools of frames → shuffled batches of context windows."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from asr_kd.lattices.batch import LatticeBatch
from asr_kd.losses import CompactTargets
from asr_kd.models.network import Chunks
from asr_kd.models.windows import strided_windows
from asr_kd.train.pools import Pool, PoolReader


@dataclasses.dataclass
class Batch:
    """B training examples.

    Attributes:
        inputs: (B, window × D) normalised features, in the loader's dtype; with ``chunks``, (n, T, D).
        labels: (B,) int64 senones; ``UNLABELLED`` where there is no transcript.
        soft: soft targets: compact ones from a store, dense ones (B, C) in float32 from teachers; or None.
        streams: {stream: examples} that this process reads, in the order of the examples.
        global_size: examples in the batch of all processes; 0: not known.
        chunks: where the examples are in ``inputs``, for networks that are trained on chunks.
        lattices: in sequence training, of the utterances that the examples are.
        quiet: (B,) bool, with lattices: frames in which the search takes silence for certain.
    """

    inputs: Tensor
    labels: Tensor
    soft: CompactTargets | Tensor | None
    streams: Mapping[int, int] = dataclasses.field(default_factory=dict)
    global_size: int = 0
    chunks: Chunks | None = None
    lattices: LatticeBatch | None = None
    quiet: Tensor | None = None


class Selection(Protocol):
    """Chooses the examples to learn from (asr_kd.specialists.specialist).

    Attributes:
        fraction: of all examples that it chooses.
    """

    fraction: float

    def __call__(self, labels: np.ndarray, order: np.random.Generator) -> np.ndarray:
        """Return the indices, shuffled, of the examples chosen among those with ``labels`` (N,)."""


def batches_per_epoch(examples: int, batch_size: int, select: Selection | None) -> int:
    """Return the number of batches of the examples that ``select`` chooses."""
    return -(-round(examples * (1.0 if select is None else select.fraction)) // batch_size)


class FrameLoader:
    """Batches of context windows over the frames of one split.

    Args:
        pools: reads the frames.
        batch_size: windows per batch of all processes; the batches of a pool differ by one window at most.
        device: of the batches.
        select: chooses and shuffles some frames of a pool by their labels; for a single stream.  None: all frames.
        augment: changes the features anew in every epoch; None: they stay as they are.
    """

    def __init__(
        self, pools: PoolReader, batch_size: int = 512, device: str = "cpu", select: Selection | None = None,
        augment: Callable[[Pool, np.random.Generator], Pool] | None = None,
    ) -> None:  # fmt: skip
        self.pools, self.batch_size, self.device = pools, batch_size, device
        self.select, self.augment = select, augment

    def __len__(self) -> int:
        """Batches per epoch (exact if there is one pool; several pools may add a batch each)."""
        return batches_per_epoch(self.pools.frames, self.batch_size, self.select)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield all frames once, in an order that ``seed`` alone decides."""
        order = np.random.default_rng(seed)
        for pool in self.pools.epoch(order):
            yield from self._batches(pool if self.augment is None else self.augment(pool, order), order)

    def _batches(self, pool: Pool, order: np.random.Generator) -> Iterator[Batch]:
        targets = self.pools.soft_targets
        windows = window_reader(pool.rows.to(self.device), self.pools.left + 1 + self.pools.right)
        for streams, global_size in self._deal(pool, order):
            index = np.concatenate(list(streams.values()))
            inputs = windows(pool.starts[index])
            labels = pool.labels[torch.from_numpy(index)].to(self.device)
            soft = None if targets is None else targets.batch(pool.soft, index, inputs)
            yield Batch(inputs, labels, soft, {stream: len(frames) for stream, frames in streams.items()}, global_size)

    def _deal(self, pool: Pool, order: np.random.Generator) -> Iterator[tuple[dict[int, np.ndarray], int]]:
        """Yield the frames of each batch, {stream: indices into the pool}, and the size of the batch of all processes.

        Every stream is shuffled by itself and gives all batches the same share of its frames.
        """
        streams, sizes = self.pools.streams, pool.stream_frames
        orders = [order] if streams.count == 1 else order.spawn(streams.count)
        shuffled, first = {}, 0
        for stream in streams.own:
            labels = pool.labels[first : first + sizes[stream]].numpy()
            chosen = orders[stream].permutation(len(labels)) if self.select is None else self.select(labels, order)
            shuffled[stream] = first + chosen
            first += sizes[stream]
        if self.select is not None:
            sizes = [len(shuffled[0])]
        # Never a batch without a frame of some stream: its process would have nothing to do.
        count = max(1, min(-(-sum(sizes) // self.batch_size), *sizes))
        for number in range(count):
            spans = [slice(n * number // count, n * (number + 1) // count) for n in sizes]
            size = sum(span.stop - span.start for span in spans)
            yield {stream: indices[spans[stream]] for stream, indices in shuffled.items()}, size


def window_reader(rows: Tensor, width: int) -> Callable[[np.ndarray], Tensor]:
    """Return a function that reads windows (B, width × D), given the rows where they start (B,).

    On a CPU NumPy takes a window for one item, a run of bytes that it copies at once: ten times as fast as indexing a
    strided tensor, which copies value by value.  A GPU indexes as fast as it reads, and each row is copied to it once,
    not 26 times.
    """
    if rows.device.type != "cpu":
        return lambda starts: strided_windows(rows, width)[torch.from_numpy(starts).to(rows.device)]
    row = rows.shape[1] * rows.element_size()
    runs = np.ndarray(len(rows) - width + 1, f"V{width * row}", rows.view(torch.uint8).numpy(), strides=(row,))
    return lambda starts: torch.from_numpy(runs[starts].view(np.uint8).reshape(len(starts), -1)).view(rows.dtype)
