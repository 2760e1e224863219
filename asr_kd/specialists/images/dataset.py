"""``python -m asr_kd.specialists.images``: images of many classes to study specialists on.

Three of MNIST's digits side by side make 1,000 classes that are confused as handwriting is: 1,000 times as many images
as are stored can be made of them.  Or any two folders of images, in each one folder a class.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.common.storage import atomic_path, read_json, save_array
from asr_kd.losses import CompactTargets
from asr_kd.mnist.digits.read import Digits, load_digits
from asr_kd.mnist.images import as_inputs, bent
from asr_kd.specialists.images.config import Config
from asr_kd.train.batches import Batch, batches_an_epoch
from asr_kd.train.pools import Selection

DESCRIPTION = "images.json"
SPLITS = ("train", "test")
MORE = "more"  # a further split: what specialists are trained on
DIGITS = 3  # side by side
HANDWRITINGS = "train_handwritings.npy"
BENT = 4096  # digits at once
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".pgm")


def _choose(config: Config) -> dict[str, Any]:
    """Which digits stand side by side: SPLIT_digits.npy (N, 3), indices among the digits of that split, or among their
    handwritings in train_handwritings.npy."""
    assert config.digits is not None
    order = np.random.default_rng(config.seed)
    train, test = load_digits(config.digits)
    if config.variants:
        _bend_all(train, config)
    for split, count in (("train", config.per_class), ("test", config.test_per_class), (MORE, config.more_per_class)):
        digits, variants = (test, 1) if split == "test" else (train, max(1, config.variants))
        labels = np.repeat(np.arange(10**DIGITS), count)
        chosen = np.empty((len(labels), DIGITS), np.int32)
        for place in range(DIGITS):
            wanted = labels // 10 ** (DIGITS - 1 - place) % 10
            for digit in range(10):
                here = wanted == digit
                chosen[here, place] = order.choice(np.flatnonzero(digits.labels == digit), int(here.sum()))
        chosen += len(digits) * order.integers(variants, size=chosen.shape, dtype=np.int32)
        if count:
            save_array(config.out / f"{split}_digits.npy", chosen)
            save_array(config.out / f"{split}_labels.npy", labels)
    names = [f"{label:0{DIGITS}d}" for label in range(10**DIGITS)]
    return {"names": names, "digits": os.path.relpath(config.digits, config.out), "pixels": DIGITS * 28 * 28}


def _bend_all(digits: Digits, config: Config) -> None:
    """train_handwritings.npy: (variants × N, 28, 28) uint8, all digits bent in one way, then all in another, …"""
    random = torch.Generator().manual_seed(config.seed)
    shape = (config.variants * len(digits), *digits.images.shape[1:])
    with atomic_path(config.out / HANDWRITINGS) as temporary:
        found = np.lib.format.open_memmap(temporary, "w+", np.uint8, shape)
        inputs = as_inputs(digits)
        for at in progress(range(0, len(found), BENT), "handwritings", unit="block"):
            index = torch.arange(at, min(at + BENT, len(found))) % len(digits)
            found[at : at + BENT] = bent(inputs[index], config.bend, random).mul_(255).round_().view(-1, *shape[1:])
        found.flush()


def _read(config: Config) -> dict[str, Any]:
    """SPLIT_images.npy (N, size, size) uint8."""
    from PIL import Image, UnidentifiedImageError

    assert config.train is not None and config.test is not None
    names = sorted(path.name for path in config.train.iterdir() if path.is_dir()) if config.train.is_dir() else []
    if len(names) < 2:
        raise UserError(f"{config.train} has not two folders of images or more: give one folder a class")
    for split, folder in zip(SPLITS, (config.train, config.test), strict=True):
        paths = [
            (label, path)
            for label, name in enumerate(names)
            for path in sorted((folder / name).glob("*"))
            if path.suffix.lower() in ENDINGS
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
            raise UserError(f"{folder / names[min(empty)]} has no image that can be read: add some, or delete it")
        if not images:
            raise UserError(f"{folder} has no image that can be read: give a folder with one folder a class")
        (config.out / f"skipped_{split}.tsv").write_text("".join(line + "\n" for line in skipped))
        save_array(config.out / f"{split}_images.npy", np.stack(images))
        save_array(config.out / f"{split}_labels.npy", np.array(labels, np.int64))
        print(f"{split}: {len(images)} images, {len(skipped)} skipped")
    return {"names": names, "digits": None, "pixels": config.size**2}


class Images:
    """The images of one split: train, test or ``MORE``.

    Attributes:
        labels: (N,) int64.
        names: of the classes.
        pixels: of an image.

    Raises:
        UserError: ``folder`` was not made by this stage.
    """

    def __init__(self, folder: Path, split: str) -> None:
        description = read_json(folder / DESCRIPTION)
        self.names: list[str] = description["names"]
        self.pixels = int(description["pixels"])
        self.labels: np.ndarray = np.load(folder / f"{split}_labels.npy", allow_pickle=False)
        if description["digits"] is None:
            pictures = np.load(folder / f"{split}_images.npy", allow_pickle=False)
            chosen = np.arange(len(pictures))[:, None]
        else:
            if split != "test" and (folder / HANDWRITINGS).is_file():
                pictures = np.load(folder / HANDWRITINGS, mmap_mode="c", allow_pickle=False)
            else:
                train, test = load_digits(folder / description["digits"])
                pictures = (test if split == "test" else train).images
            chosen = np.load(folder / f"{split}_digits.npy", allow_pickle=False).astype(np.int64)
        self._pictures, self._chosen = torch.from_numpy(pictures), torch.from_numpy(chosen)

    @staticmethod
    def has(folder: Path, split: str) -> bool:
        """Whether there are images of this split."""
        return (folder / f"{split}_labels.npy").is_file()

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, index: Tensor, dtype: torch.dtype, device: str) -> Tensor:
        """(B, pixels) from 0 to 1; of several digits one after the other."""
        return self._pictures[self._chosen[index]].flatten(1).to(device, dtype).div_(255)


class ImageBatches:
    """Batches of images, a ``trainer.Loader``.

    Args:
        images: what to learn from.
        batch_size: images a batch; the last one of an epoch may be smaller.
        select: chooses and shuffles examples by their labels (asr_kd.specialists.special); None: all.
        soft: (N, C) or compact soft targets of all images, by index; None: labels alone.
        dtype, device: of the inputs.
    """

    def __init__(
        self, images: Images, batch_size: int, dtype: torch.dtype, device: str,
        select: Selection | None = None, soft: Callable[[np.ndarray], CompactTargets] | None = None,
    ) -> None:  # fmt: skip
        self.images, self.batch_size, self.dtype, self.device = images, batch_size, dtype, device
        self.select, self.soft = select, soft
        self._labels = images.labels

    def __len__(self) -> int:
        return batches_an_epoch(len(self.images), self.batch_size, self.select)

    def epoch(self, seed: int) -> Iterator[Batch]:
        """One pass, in an order that ``seed`` alone decides."""
        order = np.random.default_rng(seed)
        chosen = order.permutation(len(self.images)) if self.select is None else self.select(self._labels, order)
        for at in range(0, len(chosen), self.batch_size):
            index = chosen[at : at + self.batch_size]
            inputs = self.images.inputs(torch.from_numpy(index), self.dtype, self.device)
            labels = torch.from_numpy(self._labels[index]).to(self.device)
            yield Batch(inputs, labels, None if self.soft is None else self.soft(index))
