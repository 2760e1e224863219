"""Digits → shuffled batches, moved about and bent if wanted, with the soft targets of teachers."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from asr_kd.losses import average_distributions
from asr_kd.mnist.digits.read import SIZE, Digits
from asr_kd.models.checkpoints import load_model
from asr_kd.models.dnn import MaskPool
from asr_kd.models.posteriors import scores
from asr_kd.train.batches import Batch

POINTS = 4  # a side of the grid of points that bending displaces
KEPT = 1 << 28  # bytes of soft targets that may be kept: enough for five by five places of all images


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
        bend: standard deviation, in pixels, of how far ``bent`` displaces each image, anew in each epoch.
        dropout: share of pixels dropped.
        teachers: give the soft targets, of the image as it was moved and bent.
        dtype, device: of the images.
    """

    def __init__(
        self,
        digits: Digits,
        batch_size: int,
        jitter: int = 0,
        bend: float = 0.0,
        dropout: float = 0.0,
        teachers: Teachers | None = None,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
    ) -> None:
        self.batch_size, self.jitter, self.bend, self.teachers = batch_size, jitter, bend, teachers
        self.labels = torch.from_numpy(digits.labels).to(device)
        padded = np.pad(digits.images, ((0, 0), (jitter, jitter), (jitter, jitter)))
        self.padded = torch.from_numpy(padded).to(device, dtype).div_(255)
        self.pixels = MaskPool(dropout)
        # What the teachers said of an image in a place, to ask them once alone: (N, places, places, 10), NaN where
        # they were not asked yet.
        table = (len(digits), 2 * jitter + 1, 2 * jitter + 1, 10)
        keeps = teachers is not None and bend == 0 and 4 * math.prod(table) <= KEPT
        self.said = torch.full(table, torch.nan, device=device) if keeps else None

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """One pass over the images, in an order and with moves that ``seed`` alone decides."""
        order = np.random.default_rng(seed)
        self.pixels.reseed(seed)
        permutation = torch.from_numpy(order.permutation(len(self.labels)))
        moves = torch.from_numpy(order.integers(0, 2 * self.jitter + 1, (2, len(self.labels))))
        random = torch.Generator().manual_seed(seed)
        for at in range(0, len(permutation), self.batch_size):
            place = (permutation[at : at + self.batch_size], *moves[:, at : at + self.batch_size])
            inputs = self._moved(*place)
            if self.bend > 0:
                inputs = bent(inputs, self.bend, random)
            soft = None if self.teachers is None else self._soft(self.teachers, inputs, place)
            if self.pixels.dropout > 0:
                inputs *= self.pixels.mask(inputs)
            yield Batch(inputs, self.labels[place[0]], soft)

    def _moved(self, index: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Images cut out of their padding: (B, 784)."""
        count, side, _ = self.padded.shape
        places = side - SIZE + 1
        area = side * side
        # Every place that an image can be cut out at, without a copy.
        cuts = self.padded.as_strided((count, places, places, SIZE, SIZE), (area, side, 1, side, 1))
        return cuts[index, down, right].flatten(1)

    def _soft(self, teachers: Teachers, inputs: Tensor, place: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        if self.said is None:
            return teachers(inputs)
        soft = self.said[place]
        new = soft[:, 0].isnan()
        if new.any():
            soft[new] = teachers(inputs[new])
            self.said[place] = soft
        return soft


def bent(images: Tensor, pixels: float, random: torch.Generator) -> Tensor:
    """Displace a grid of points at random, and the image smoothly in between: turns, stretches, slants, bends.

    Args:
        images: (B, 784), paper 0 and ink 1.
        pixels: standard deviation of the displacement of a point, down and to the right.
        random: decides the displacements; on the CPU, so that they do not depend on the device.

    Returns:
        Images like those given.
    """
    points = torch.randn((2 * len(images), POINTS**2), generator=random).to(images.device)
    field = (points @ _basis(images.device)).view(-1, 2, SIZE, SIZE).mul_(2 * pixels / (SIZE - 1))
    line = torch.linspace(-1, 1, SIZE, device=images.device)
    where = field.add_(torch.stack(torch.meshgrid(line, line, indexing="xy"))).permute(0, 2, 3, 1)
    square = images.float().view(-1, 1, SIZE, SIZE)
    return F.grid_sample(square, where, align_corners=True).flatten(1).to(images.dtype)


@functools.cache
def _basis(device: torch.device) -> Tensor:
    """How far each point displaces each pixel: (POINTS², 784)."""
    each = torch.eye(POINTS**2, device=device).view(-1, 1, POINTS, POINTS)
    return F.interpolate(each, (SIZE, SIZE), mode="bicubic", align_corners=True).flatten(1)


def as_inputs(digits: Digits, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """(N, 784), paper 0 and ink 1."""
    return torch.from_numpy(digits.images).to(device, dtype).div_(255).flatten(1)
