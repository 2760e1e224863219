"""Shuffled batches of digits, optionally shifted and distorted, with the soft targets of teachers."""

import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from asr_kd.losses import average_distributions
from asr_kd.mnist.digits.dataset import SIZE, Digits
from asr_kd.models.checkpoints import load_model
from asr_kd.models.posteriors import compute_logits
from asr_kd.train.batches import Batch
from asr_kd.train.layers import MaskPool

GRID = 4  # points per side of the grid that an elastic distortion displaces
MAX_CACHE = 1 << 28  # bytes of soft targets that are cached: enough for 5×5 shifts of all training images


class Teachers:
    """Soft targets of images: the teachers' averaged distributions at temperature T, or, if T is infinite, their
    averaged logits."""

    def __init__(self, folders: Sequence[Path], temperature: float, dtype: torch.dtype, device: str) -> None:
        self.models = [load_model(folder, device) for folder in folders]
        self.temperature, self.dtype = temperature, dtype

    def __call__(self, inputs: Tensor) -> Tensor:
        """(B, 784) → (B, 10) float32."""
        logits = [compute_logits(model, inputs, self.dtype) for model in self.models]
        if math.isinf(self.temperature):
            return torch.stack(logits).mean(0)
        return average_distributions(logits, self.temperature)


class DigitLoader:
    """Batches of digits.

    Args:
        digits: the training images.
        batch_size: images per batch; the last batch of an epoch may be smaller.
        jitter: largest shift along each axis, in pixels, drawn again in each epoch; the margin is filled with paper.
        bend: standard deviation of the elastic distortion (see ``distort``), in pixels, drawn again in each epoch.
        dropout: dropout rate of pixels.
        teachers: compute the soft targets of the shifted and distorted image.
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
        self.masks = MaskPool(dropout)
        # Soft targets of every image at every shift, (N, shifts, shifts, 10); NaN where they are not computed yet.
        shape = (len(digits), 2 * jitter + 1, 2 * jitter + 1, 10)
        cached = teachers is not None and bend == 0 and 4 * math.prod(shape) <= MAX_CACHE
        self.cache = torch.full(shape, torch.nan, device=device) if cached else None

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``seed`` alone determines order, shifts and distortions."""
        random = np.random.default_rng(seed)
        self.masks.reseed(seed)
        order = torch.from_numpy(random.permutation(len(self.labels)))
        shifts = torch.from_numpy(random.integers(0, 2 * self.jitter + 1, (2, len(self.labels))))
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, len(order), self.batch_size):
            index = (order[start : start + self.batch_size], *shifts[:, start : start + self.batch_size])
            inputs = self._crop(*index)
            if self.bend > 0:
                inputs = distort(inputs, self.bend, generator)
            soft = None if self.teachers is None else self._soft(self.teachers, inputs, index)
            if self.masks.dropout > 0:
                inputs *= self.masks.mask(inputs)
            yield Batch(inputs, self.labels[index[0]], soft)

    def _crop(self, index: Tensor, down: Tensor, right: Tensor) -> Tensor:
        """Return images cropped from their padding, (B, 784)."""
        count, side, _ = self.padded.shape
        shifts = side - SIZE + 1
        area = side * side
        # A view of every possible crop, without a copy.
        crops = self.padded.as_strided((count, shifts, shifts, SIZE, SIZE), (area, side, 1, side, 1))
        return crops[index, down, right].flatten(1)

    def _soft(self, teachers: Teachers, inputs: Tensor, index: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        if self.cache is None:
            return teachers(inputs)
        soft = self.cache[index]
        missing = soft[:, 0].isnan()
        if missing.any():
            soft[missing] = teachers(inputs[missing])
            self.cache[index] = soft
        return soft


def distort(images: Tensor, pixels: float, generator: torch.Generator) -> Tensor:
    """Return elastically distorted images: a grid of points is displaced at random, and the image smoothly between.

    Args:
        images: (B, 784), paper is 0 and ink 1.
        pixels: standard deviation of a point's displacement along each axis.
        generator: draws the displacements, on the CPU, so that they do not depend on the device.
    """
    points = torch.randn((2 * len(images), GRID**2), generator=generator).to(images.device)
    field = (points @ _interpolation(images.device)).view(-1, 2, SIZE, SIZE).mul_(2 * pixels / (SIZE - 1))
    line = torch.linspace(-1, 1, SIZE, device=images.device)
    positions = field.add_(torch.stack(torch.meshgrid(line, line, indexing="xy"))).permute(0, 2, 3, 1)
    square = images.float().view(-1, 1, SIZE, SIZE)
    return F.grid_sample(square, positions, align_corners=True).flatten(1).to(images.dtype)


@functools.cache
def _interpolation(device: torch.device) -> Tensor:
    """Return the weight of each grid point's displacement at each pixel, (GRID², 784)."""
    points = torch.eye(GRID**2, device=device).view(-1, 1, GRID, GRID)
    return F.interpolate(points, (SIZE, SIZE), mode="bicubic", align_corners=True).flatten(1)


def as_inputs(digits: Digits, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Tensor:
    """Return the images as (N, 784), paper is 0 and ink 1."""
    return torch.from_numpy(digits.images).to(device, dtype).div_(255).flatten(1)
