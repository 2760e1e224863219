"""Digits → shuffled batches, moved about by some pixels if wanted, with the soft targets of teachers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr_kd.frames import Batch
from asr_kd.losses import average_distributions
from asr_kd.mnist.digits import SIZE, Digits
from asr_kd.models import MaskPool, load_model, scores

BLOCK = 5000  # images scored at once


class Teachers:
    """Soft targets of images: the teachers' averaged distributions at temperature T, or, where T is infinite, their
    averaged logits."""

    def __init__(self, folders: Sequence[Path], temperature: float, dtype: torch.dtype, device: str) -> None:
        self.models = [load_model(folder, device) for folder in folders]
        self.temperature, self.dtype = temperature, dtype

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, 784) → (B, 10) float32."""
        logits = [scores(model, inputs, self.dtype) for model in self.models]
        if math.isinf(self.temperature):
            return torch.stack(logits).mean(0)
        return average_distributions(logits, self.temperature)


class ImageLoader:
    """Batches of images.

    Args:
        digits: what to learn from.
        batch_size: images a batch; the last one of an epoch may be smaller.
        jitter: each image is moved by up to so many pixels either way, anew in each epoch; what it leaves is paper.
        dropout: share of pixels dropped.
        teachers: give the soft targets, of the image as it was moved.
        dtype, device: of the images.
    """

    def __init__(
        self,
        digits: Digits,
        batch_size: int,
        jitter: int = 0,
        dropout: float = 0.0,
        teachers: Teachers | None = None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self.batch_size, self.jitter, self.teachers = batch_size, jitter, teachers
        self.labels = torch.from_numpy(digits.labels).to(device)
        padded = np.pad(digits.images, ((0, 0), (jitter, jitter), (jitter, jitter)))
        self.padded = torch.from_numpy(padded).to(device, dtype).div_(255)
        self.pixels = MaskPool(dropout)
        # Images that stay where they are have the same soft targets in every epoch.
        self.soft = self._soft() if teachers is not None and jitter == 0 else None

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """One pass over the images, in an order and with moves that ``seed`` alone decides."""
        order = np.random.default_rng(seed)
        self.pixels.reseed(seed)
        permutation = torch.from_numpy(order.permutation(len(self.labels)))
        moves = torch.from_numpy(order.integers(0, 2 * self.jitter + 1, (2, len(self.labels))))
        for at in range(0, len(permutation), self.batch_size):
            index = permutation[at : at + self.batch_size]
            inputs = self._moved(index, moves[:, at : at + self.batch_size])
            soft = self.soft[index] if self.soft is not None else None
            if self.teachers is not None and soft is None:
                soft = self.teachers(inputs)
            if self.pixels.dropout > 0:
                inputs *= self.pixels.mask(inputs)
            yield Batch(inputs, self.labels[index], soft)

    def _moved(self, index: Tensor, moves: Tensor) -> Tensor:
        """Images cut out of their padding at ``moves`` (2, B): (B, 784)."""
        count, side, _ = self.padded.shape
        places = side - SIZE + 1
        area = side * side
        # Every place that an image can be cut out at, without a copy.
        cuts = self.padded.as_strided((count, places, places, SIZE, SIZE), (area, side, 1, side, 1))
        return cuts[index, moves[0], moves[1]].flatten(1)

    def _soft(self) -> Tensor:
        assert self.teachers is not None
        return torch.cat([self.teachers(block.flatten(1)) for block in self.padded.split(BLOCK)])


def as_inputs(digits: Digits, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """(N, 784), paper 0 and ink 1."""
    return torch.from_numpy(digits.images).to(device, dtype).div_(255).flatten(1)
