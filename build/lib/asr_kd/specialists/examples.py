"""Examples of many classes: images, or the frames of a corpus.  They come in batches for training, or in order, in
blocks, for scoring."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.storage import load_array
from asr_kd.corpora.cuts import load_senones, open_cuts
from asr_kd.features.normalise import Normaliser
from asr_kd.losses import CompactTargets
from asr_kd.models.dnn import dnn
from asr_kd.models.front_end import check_same_front_end
from asr_kd.models.network import (
    AcousticModel,
    Chunks,
    Network,
    context_of,
    is_window_classifier,
    read_network,
    segment_of,
    window_of,
)
from asr_kd.models.posteriors import utterance_inputs
from asr_kd.models.senones import check_same_senones
from asr_kd.specialists.config import ExamplesConfig
from asr_kd.specialists.images.dataset import EXTRA, ImageLoader, Images
from asr_kd.train.batches import FrameLoader, Selection
from asr_kd.train.chunks import CHUNK, UNBOUNDED, ChunkLoader
from asr_kd.train.fit import Loader
from asr_kd.train.pools import PoolReader
from asr_kd.train.sources import Manifests

BLOCK = 2048  # images per block


@dataclasses.dataclass
class Block:
    """Consecutive examples: their key in a store of soft targets, inputs (N, D), labels (N,).  With ``chunks``, inputs
    are the frames of an utterance (1, N, D)."""

    key: str
    inputs: Tensor
    labels: Tensor
    chunks: Chunks | None = None


class Examples(Protocol):
    """Examples of C classes, in splits.

    Attributes:
        names: of the classes.
        counts: (C,) training examples of each class.
        grouped: whether the examples of a block depend on each other, as the frames of an utterance do.
        blocks_per_shard: in a store of soft targets.
    """

    names: list[str]
    counts: np.ndarray
    grouped: bool
    blocks_per_shard: int

    def loader(self, batch_size: int, dtype: torch.dtype, device: str, select: Selection | None = None) -> Loader:
        """Return batches of training examples."""

    def num_blocks(self, split: str) -> int:
        """Return the number of blocks in a split."""

    def blocks(self, split: str, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        """Yield the blocks of a split, or those from ``start`` to ``stop``."""


def open_examples(config: ExamplesConfig) -> Examples:
    """Return the examples that the flags name.

    Raises:
        UserError: the flags name none, or both kinds, or the generalist has other senones than the cuts.
    """
    if (config.images is None) == (config.features is None) or (config.features is None) != (config.cuts is None):
        raise UserError("give either --images, or --features and --cuts")
    if config.images is not None:
        return ImageExamples(config.images)
    assert config.features is not None and config.cuts is not None
    check_same_senones(config.generalist, config.cuts)
    check_same_front_end([config.generalist], config.features)
    return SpeechExamples(config.features, config.cuts, read_network(config.generalist).build())


class ImageExamples:
    """Images (see asr_kd.specialists.images)."""

    grouped, blocks_per_shard = False, 32

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._loaded: dict[str, Images] = {}
        train = self._images("train")
        self.names = train.names
        self.counts = np.bincount(train.labels, minlength=len(self.names))

    def network(self, layers: int, width: int) -> Network:
        """Return a network for these images."""
        pixels = self._images("train").pixels
        return dnn(pixels, len(self.names), layers=layers, width=width, left=0, right=0)

    def loader(
        self, batch_size: int, dtype: torch.dtype, device: str, select: Selection | None = None,
        soft: Callable[[np.ndarray], CompactTargets] | None = None,
    ) -> Loader:  # fmt: skip
        """Return batches of training images, with ``soft`` targets by their index.  A selection is made from the extra
        images for specialists, if there are any."""
        split = EXTRA if select is not None and Images.has(self.folder, EXTRA) else "train"
        return ImageLoader(self._images(split), batch_size, dtype, device, select, soft)

    def _images(self, split: str) -> Images:
        if split not in self._loaded:
            self._loaded[split] = Images(self.folder, split)
        return self._loaded[split]

    def num_blocks(self, split: str) -> int:
        return -(-len(self._images(split)) // BLOCK)

    def blocks(self, split: str, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        images = self._images(split)
        for number in range(self.num_blocks(split))[start:stop]:
            index = torch.arange(number * BLOCK, min((number + 1) * BLOCK, len(images)))
            inputs = images.inputs(index, torch.float32, "cpu")
            yield Block(f"images-{number:05d}", inputs, torch.from_numpy(images.labels[index.numpy()]))


class SpeechExamples:
    """Frames of a corpus, in windows or chunks as a network sees them; a block is a cut."""

    grouped, blocks_per_shard = True, 200

    def __init__(self, features: Path, cuts: Path, network: AcousticModel) -> None:
        self.folder, self.normaliser, self.network = cuts, Normaliser.load(features), network
        self.counts = load_array(cuts / "pdf_counts.npy")
        self.names = [f"senone {pdf}" for pdf in range(len(self.counts))]

    def loader(self, batch_size: int, dtype: torch.dtype, device: str, select: Selection | None = None) -> Loader:
        cuts = Manifests([self._cuts("train")])
        if is_window_classifier(self.network):
            pools = PoolReader(cuts, self.normaliser, *window_of(self.network), dtype=dtype)
            return FrameLoader(pools, batch_size, device, select)
        pools, context = PoolReader(cuts, self.normaliser, 0, 0), context_of(self.network, UNBOUNDED)
        chunks = max(1, batch_size // CHUNK)
        return ChunkLoader(pools, context, segment_of(self.network), CHUNK, chunks, device, select)

    def _cuts(self, split: str) -> Path:
        return self.folder / f"cuts_{split}.jsonl.gz"

    def num_blocks(self, split: str) -> int:
        return sum(1 for _ in open_cuts(self._cuts(split)))

    def blocks(self, split: str, start: int = 0, stop: int | None = None) -> Iterator[Block]:
        for cut in itertools.islice(open_cuts(self._cuts(split)), start, stop):
            rows = torch.from_numpy(self.normaliser(cut))
            inputs, chunks = utterance_inputs(self.network, rows, 0, len(rows))
            yield Block(cut.id, inputs, torch.from_numpy(load_senones(cut).astype(np.int64)), chunks)
