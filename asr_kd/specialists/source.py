"""What specialists are trained on: images, or the frames of a corpus.  Both give inputs and labels, in batches to learn
from and in blocks, in order, to be scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from asr_kd.features import Normaliser
from asr_kd.frames import FrameLoader
from asr_kd.models import AcousticModel, Shape, context_windows
from asr_kd.specialists.images import ImageBatches, Images
from asr_kd.storage import UserError
from asr_kd.trainer import Loader

BLOCK = 2048  # images scored at once
Select = Callable[[np.ndarray, np.random.Generator], np.ndarray]


@dataclasses.dataclass
class Config:
    """Where the examples are: --images, or --features with --cuts."""

    images: Path | None = None
    """Folder of images (made by asr_kd.specialists.images)."""
    features: Path | None = None
    """Instead, features of a corpus (made by asr_kd.features)."""
    cuts: Path | None = None
    """Their cuts with senones (made by asr_kd.hmm)."""

    @property
    def folders(self) -> list[Path]:
        return [path for path in (self.images, self.features, self.cuts) if path is not None]


@dataclasses.dataclass
class Block:
    """Examples in order: a key that a store of soft targets knows them by, inputs (N, D), labels (N,)."""

    key: str
    inputs: Tensor
    labels: Tensor


class Source(Protocol):
    """Examples of some classes.

    Attributes:
        names: of the classes.
        counts: (C,) training examples of each.
    """

    names: list[str]
    counts: np.ndarray

    def shape(self, layers: int, width: int) -> Shape:
        """Of a network for it."""

    def loader(self, batch_size: int, dtype: torch.dtype, device: str, select: Select | None = None) -> Loader:
        """Batches of training examples."""

    def blocks(self, role: str) -> Iterator[Block]:
        """All examples of a role."""


def open_source(config: Config) -> Source:
    """The source that the flags name.

    Raises:
        UserError: none, or both.
    """
    if (config.images is None) == (config.features is None) or (config.features is None) != (config.cuts is None):
        raise UserError("give either --images, or --features and --cuts")
    if config.images is not None:
        return ImageSource(config.images)
    assert config.features is not None and config.cuts is not None
    return SpeechSource(config.features, config.cuts)


class ImageSource:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._train = Images(folder, "train")
        self.names = self._train.names
        self.counts = np.bincount(self._train.labels, minlength=len(self.names))

    def shape(self, layers: int, width: int) -> Shape:
        return Shape(layers, width, len(self.names), left=0, right=0, feature_dim=self._train.pixels)

    def loader(self, batch_size: int, dtype: torch.dtype, device: str, select: Select | None = None) -> Loader:
        return ImageBatches(self._train, batch_size, dtype, device, select)

    def blocks(self, role: str) -> Iterator[Block]:
        images = self._train if role == "train" else Images(self.folder, role)
        for number, index in enumerate(torch.arange(len(images)).split(BLOCK)):
            inputs = images.inputs(index, torch.float32, "cpu")
            yield Block(block_key(number), inputs, torch.from_numpy(images.labels[index.numpy()]))


def block_key(number: int) -> str:
    """Images of one block, in a store of soft targets."""
    return f"images-{number:05d}"


class SpeechSource:
    def __init__(self, features: Path, cuts: Path) -> None:
        self.folder, self.normaliser = cuts, Normaliser.load(features)
        self.counts = np.load(cuts / "pdf_counts.npy", allow_pickle=False)
        self.names = [f"senone {pdf}" for pdf in range(len(self.counts))]

    def shape(self, layers: int, width: int) -> Shape:
        return Shape(layers, width, len(self.names))

    def loader(self, batch_size: int, dtype: torch.dtype, device: str, select: Select | None = None) -> Loader:
        cuts = self.folder / "cuts_train.jsonl.gz"
        return FrameLoader(cuts, self.normaliser, batch_size=batch_size, dtype=dtype, device=device, select=select)

    def blocks(self, role: str) -> Iterator[Block]:
        from lhotse import load_manifest_lazy

        for cut in load_manifest_lazy(self.folder / f"cuts_{role}.jsonl.gz"):
            windows = context_windows(torch.from_numpy(self.normaliser(cut)), Shape.left, Shape.right)
            yield Block(cut.id, windows, torch.from_numpy(cut.load_custom("senones").astype(np.int64)))


@torch.inference_mode()
def scores(model: AcousticModel, inputs: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits (N, outputs) float32 of a block."""
    with torch.autocast(inputs.device.type, dtype, enabled=dtype != torch.float32):
        return model(inputs).float()
