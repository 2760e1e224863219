"""Images of many classes.

Three of MNIST's digits side by side give 1,000 classes that are confused as handwriting is.  Images are composed when
they are read, so that there can be far more of them than digits are stored.  Alternatively, folders of images are read,
with one folder per class.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.common.storage import atomic_open, atomic_path, load_array, read_json, save_array
from asr_kd.losses import CompactTargets
from asr_kd.mnist.digits.dataset import Digits, load_digits
from asr_kd.mnist.loader import as_inputs, distort
from asr_kd.specialists.images.config import Config
from asr_kd.train.batches import Batch, Selection, batches_per_epoch

DESCRIPTION = "images.json"
EXTRA = "more"  # split of extra training images for specialists
DIGITS = 3  # side by side
VARIANTS = "train_handwritings.npy"
BLOCK = 4096  # digits distorted at once
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".pgm")


def compose_digits(config: Config) -> dict[str, Any]:
    """Write SPLIT_digits.npy (N, 3): indices of each image's digits in the digits of that split, or in their distorted
    variants in train_handwritings.npy.  Return the description of the images."""
    assert config.digits is not None
    order = np.random.default_rng(config.seed)
    train, test = load_digits(config.digits)
    if config.variants:
        _write_variants(train, config)
    for split, count in (("train", config.per_class), ("test", config.test_per_class), (EXTRA, config.more_per_class)):
        digits, variants = (test, 1) if split == "test" else (train, max(1, config.variants))
        labels = np.repeat(np.arange(10**DIGITS), count)
        chosen = np.empty((len(labels), DIGITS), np.int32)
        for position in range(DIGITS):
            digit_labels = labels // 10 ** (DIGITS - 1 - position) % 10
            for digit in range(10):
                here = digit_labels == digit
                chosen[here, position] = order.choice(np.flatnonzero(digits.labels == digit), int(here.sum()))
        chosen += len(digits) * order.integers(variants, size=chosen.shape, dtype=np.int32)
        if count:
            save_array(config.out / f"{split}_digits.npy", chosen)
            save_array(config.out / f"{split}_labels.npy", labels)
    names = [f"{label:0{DIGITS}d}" for label in range(10**DIGITS)]
    return {"names": names, "digits": os.path.relpath(config.digits, config.out), "pixels": DIGITS * 28 * 28}


def _write_variants(digits: Digits, config: Config) -> None:
    """Write train_handwritings.npy: (variants × N, 28, 28) uint8, first one variant of all digits, then the next."""
    generator = torch.Generator().manual_seed(config.seed)
    shape = (config.variants * len(digits), *digits.images.shape[1:])
    with atomic_path(config.out / VARIANTS) as temporary:
        variants = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        inputs = as_inputs(digits)
        for start in progress(range(0, len(variants), BLOCK), "variants", unit="block"):
            index = torch.arange(start, min(start + BLOCK, len(variants))) % len(digits)
            pixels = distort(inputs[index], config.bend, generator).mul_(255).round_()
            variants[start : start + BLOCK] = pixels.view(-1, *shape[1:])
        variants.flush()


def read_folders(config: Config) -> dict[str, Any]:
    """Write SPLIT_images.npy (N, size, size) uint8, and return the description of the images.

    Raises:
        UserError: there are fewer than two classes, or a class without a readable image.
    """
    from PIL import Image, UnidentifiedImageError

    assert config.train is not None and config.test is not None
    names = sorted(path.name for path in config.train.iterdir() if path.is_dir()) if config.train.is_dir() else []
    if len(names) < 2:
        raise UserError(f"{config.train} has fewer than two folders of images: give one folder per class")
    for split, folder in zip(("train", "test"), (config.train, config.test), strict=True):
        paths = [
            (label, path)
            for label, name in enumerate(names)
            for path in sorted((folder / name).glob("*"))
            if path.suffix.lower() in SUFFIXES
        ]
        images, labels, skipped = [], [], []
        for label, path in progress(paths, f"{split} images", unit="image"):
            try:
                with Image.open(path) as image:
                    images.append(np.asarray(image.convert("L").resize((config.size, config.size))))
                labels.append(label)
            except (OSError, UnidentifiedImageError) as error:
                skipped.append(f"{path}\t{error}")
        empty = set(range(len(names))) - set(labels)
        if split == "train" and empty:
            raise UserError(f"{folder / names[min(empty)]} has no readable image: add some, or delete it")
        if not images:
            raise UserError(f"{folder} has no readable image: give one folder per class")
        with atomic_open(config.out / f"skipped_{split}.tsv") as file:
            file.writelines(line + "\n" for line in skipped)
        save_array(config.out / f"{split}_images.npy", np.stack(images))
        save_array(config.out / f"{split}_labels.npy", np.array(labels, np.int64))
        print(f"{split}: {len(images)} images, {len(skipped)} skipped")
    return {"names": names, "digits": None, "pixels": config.size**2}


class Images:
    """The images of one split: train, test or ``EXTRA``.

    Attributes:
        labels: (N,) int64.
        names: of the classes.
        pixels: per image.

    Raises:
        UserError: ``folder`` was not written by this stage.
    """

    def __init__(self, folder: Path, split: str) -> None:
        description = read_json(folder / DESCRIPTION)
        self.names: list[str] = description["names"]
        self.pixels = int(description["pixels"])
        self.labels: np.ndarray = load_array(folder / f"{split}_labels.npy")
        if description["digits"] is None:
            pictures = load_array(folder / f"{split}_images.npy")
            chosen = np.arange(len(pictures))[:, None]
        else:
            if split != "test" and (folder / VARIANTS).is_file():
                pictures = load_array(folder / VARIANTS, "c")
            else:
                train, test = load_digits(folder / description["digits"])
                pictures = (test if split == "test" else train).images
            chosen = load_array(folder / f"{split}_digits.npy").astype(np.int64)
        self._pictures, self._chosen = torch.from_numpy(pictures), torch.from_numpy(chosen)

    @staticmethod
    def has(folder: Path, split: str) -> bool:
        """Return whether there are images of this split."""
        return (folder / f"{split}_labels.npy").is_file()

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, index: Tensor, dtype: torch.dtype, device: str) -> Tensor:
        """Return images as (B, pixels) from 0 to 1, with the pixels of one digit after the other."""
        return self._pictures[self._chosen[index]].flatten(1).to(device, dtype).div_(255)


class ImageLoader:
    """Batches of images.

    Args:
        images: the training images.
        batch_size: images per batch; the last batch of an epoch may be smaller.
        select: selects and shuffles images by their labels; None: all images.
        soft: returns the soft targets of images by their index; None: labels only.
        dtype, device: of the inputs.
    """

    def __init__(
        self, images: Images, batch_size: int, dtype: torch.dtype, device: str,
        select: Selection | None = None, soft: Callable[[np.ndarray], CompactTargets] | None = None,
    ) -> None:  # fmt: skip
        self.images, self.batch_size, self.dtype, self.device = images, batch_size, dtype, device
        self.select, self.soft = select, soft

    def __len__(self) -> int:
        return batches_per_epoch(len(self.images), self.batch_size, self.select)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """Yield the batches of one epoch; ``seed`` alone determines the order."""
        order = np.random.default_rng(seed)
        chosen = order.permutation(len(self.images)) if self.select is None else self.select(self.images.labels, order)
        for start in range(0, len(chosen), self.batch_size):
            index = chosen[start : start + self.batch_size]
            inputs = self.images.inputs(torch.from_numpy(index), self.dtype, self.device)
            labels = torch.from_numpy(self.images.labels[index]).to(self.device)
            yield Batch(inputs, labels, None if self.soft is None else self.soft(index))
