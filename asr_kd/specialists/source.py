"""What specialists are trained on: images, or the frames of a corpus.  Both give inputs and labels, in batches to learn
from and in blocks, in order, to be scored."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.features.normalise import Normaliser
from asr_kd.losses import CompactTargets
from asr_kd.models.dnn import Shape
from asr_kd.models.windows import context_windows
from asr_kd.specialists.config import ExamplesConfig
from asr_kd.specialists.images.dataset import MORE, ImageBatches, Images
from asr_kd.train.batches import FrameLoader
from asr_kd.train.fit import Loader
from asr_kd.train.pools import Selection

BLOCK = 2048  # images scored at once


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
        together: whether the examples of a block belong together, as the frames of an utterance do; if not, each is
            drawn on its own.
        blocks_a_shard: in a store of soft targets.
    """

    names: list[str]
    counts: np.ndarray
    together: bool
    blocks_a_shard: int

    def loader(self, batch_size: int, dtype: torch.dtype, device: str, select: Selection | None = None) -> Loader:
        """Batches of training examples."""

    def count_blocks(self, split: str) -> int:
        """How many blocks the examples of a split make."""

    def blocks(self, split: str, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """The examples of a split, or those of some of its blocks."""


def open_source(config: ExamplesConfig) -> Source:
    """The source that the flags name.

    Raises:
        UserError: none, or both.
    """
    if (config.images is None) == (config.features is None) or (config.features is None) != (config.cuts is None):
        raise UserError("give either --images, or --features and --cuts")
    if config.images is not None:
        return ImageSource(config.images)
    assert config.features is not None and config.cuts is not None
    shape = read_json(config.generalist / "model.json")["shape"]
    return SpeechSource(config.features, config.cuts, shape["left"], shape["right"])


class ImageSource:
    """Images (asr_kd.specialists.images)."""

    together, blocks_a_shard = False, 32

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, Images] = {}
        train = self._images("train")
        self.names = train.names
        self.counts = np.bincount(train.labels, minlength=len(self.names))

    def shape(self, layers: int, width: int) -> Shape:
        """Of a network for them."""
        return Shape(layers, width, len(self.names), left=0, right=0, feature_dim=self._images("train").pixels)

    def loader(
        self, batch_size: int, dtype: torch.dtype, device: str, select: Selection | None = None,
        soft: Callable[[np.ndarray], CompactTargets] | None = None,
    ) -> Loader:  # fmt: skip
        """``soft``: soft targets of training images by their index.  A selection is of the images for specialists, if
        there are such."""
        split = MORE if select is not None and Images.has(self.folder, MORE) else "train"
        return ImageBatches(self._images(split), batch_size, dtype, device, select, soft)

    def _images(self, split: str) -> Images:
        if split not in self._loaded:
            self._loaded[split] = Images(self.folder, split)
        return self._loaded[split]

    def count_blocks(self, split: str) -> int:
        return -(-len(self._images(split)) // BLOCK)

    def blocks(self, split: str, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        images = self._images(split)
        for number in range(self.count_blocks(split))[start:stop]:
            index = torch.arange(number * BLOCK, min((number + 1) * BLOCK, len(images)))
            inputs = images.inputs(index, torch.float32, "cpu")
            yield Block(block_key(number), inputs, torch.from_numpy(images.labels[index.numpy()]))


def block_key(number: int) -> str:
    """Images of one block, in a store of soft targets."""
    return f"images-{number:05d}"


class SpeechSource:
    """Frames of a corpus, in windows of ``left`` + 1 + ``right``; a block is a cut."""

    together, blocks_a_shard = True, 200

    def __init__(self, features: Path, cuts: Path, left: int, right: int) -> None:
        self.folder, self.normaliser, self.left, self.right = cuts, Normaliser.load(features), left, right
        self.counts = np.load(cuts / "pdf_counts.npy", allow_pickle=False)
        self.names = [f"senone {pdf}" for pdf in range(len(self.counts))]

    def loader(self, batch_size: int, dtype: torch.dtype, device: str, select: Selection | None = None) -> Loader:
        cuts = self._cuts("train")
        return FrameLoader(
            cuts, self.normaliser, self.left, self.right, batch_size, dtype=dtype, device=device, select=select
        )

    def _cuts(self, split: str) -> Path:
        return self.folder / f"cuts_{split}.jsonl.gz"

    def count_blocks(self, split: str) -> int:
        from lhotse import load_manifest_lazy

        return sum(1 for _ in load_manifest_lazy(self._cuts(split)))

    def blocks(self, split: str, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        from lhotse import load_manifest_lazy

        for cut in itertools.islice(load_manifest_lazy(self._cuts(split)), start, stop):
            windows = context_windows(torch.from_numpy(self.normaliser(cut)), self.left, self.right)
            yield Block(cut.id, windows, torch.from_numpy(cut.load_custom("senones").astype(np.int64)))
