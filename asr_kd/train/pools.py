"""Cuts with senones (and soft targets) → shuffled batches of context windows, in bounded memory.

Cuts are visited in random order and gathered into pools of at most ``pool_frames`` frames; frames are
shuffled across the utterances of a pool.  A pool holds every frame once: a window of 26 frames is 26
consecutive rows of it, so a batch of windows is read from overlapping runs of its bytes, never from 26 copies.

The cuts of a pool can be dealt to streams, each shuffled by itself, that give every batch their share.  Processes that
train one network together read a stream or more each, and see the same batches however many they are.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.corpora.manifests import read_jsonl
from asr_kd.models.windows import strided_windows
from asr_kd.soft_targets.rows import TargetRows

if TYPE_CHECKING:
    from lhotse import MonoCut


@dataclasses.dataclass
class _Pool:
    rows: Tensor  # (padded frames, D): utterances one after the other, each padded by its context
    starts: np.ndarray  # (frames,) row where each frame's window begins
    labels: Tensor  # (frames,)
    soft: TargetRows | None  # of all frames, in the order of ``starts``
    frames: list[int]  # of every stream, those of other processes, too


class Selection(Protocol):
    """Chooses which examples to learn from (asr_kd.specialists.specialist).

    Attributes:
        kept: share of all examples that it chooses.
    """

    kept: float

    def __call__(self, labels: np.ndarray, order: np.random.Generator) -> np.ndarray:
        """Indices of those chosen among ``labels`` (N,), shuffled."""


class Source(Protocol):
    """Where cuts come from, in pieces that are read as a whole: a cut of a manifest each, or a shard (asr_kd.shar)."""

    @property
    def sizes(self) -> Sequence[int]:
        """Frames of each piece."""

    @property
    def unlabelled(self) -> str:
        """The first cut without senones; empty: all have some."""

    def read(self, number: int) -> Sequence[MonoCut]:
        """The cuts of a piece."""


class Manifests:
    """Cuts listed in Lhotse manifests (.jsonl.gz or .jsonl).

    Their lines lie, unpacked, in a temporary file (where TMPDIR says); in memory a cut takes 24 bytes.

    Args:
        paths: of the manifests.
        bootstrap: seed of a draw of the cuts with replacement, as many as there are; None: all of them once.

    Raises:
        UserError: a manifest is missing, damaged or empty.
    """

    def __init__(self, paths: Sequence[Path], bootstrap: int | None = None) -> None:
        self._lines = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this object is
        starts, sizes, self.unlabelled = array("q", [0]), array("q"), ""
        for path in paths:
            for cut in _manifest(path):
                senones = (cut.get("custom") or {}).get("senones")
                self.unlabelled = self.unlabelled or ("" if senones else cut["id"])
                sizes.append(senones["array"]["shape"][0] if senones else cut["features"]["num_frames"])
                starts.append(starts[-1] + self._lines.write(json.dumps(cut).encode()))
        self._lines.flush()
        self._starts, drawn = starts, np.arange(len(sizes))
        if bootstrap is not None:
            drawn = np.sort(np.random.default_rng([bootstrap, 2]).integers(len(sizes), size=len(sizes)))
        self._drawn, self.sizes = array("q", drawn.tobytes()), array("q", (sizes[index] for index in drawn))

    def read(self, number: int) -> Sequence[MonoCut]:
        from lhotse.serialization import deserialize_item

        start, stop = self._starts[self._drawn[number]], self._starts[self._drawn[number] + 1]
        return [deserialize_item(json.loads(os.pread(self._lines.fileno(), stop - start, start)))]


def read_windows(rows: Tensor, width: int) -> Callable[[np.ndarray], Tensor]:
    """Reads windows of ``width`` rows each: from where they start (B,) to (B, width × D), on the device of the rows.

    On a CPU a window is one item to NumPy, a run of bytes that it copies at once: ten times as fast as indexing a
    strided tensor, which goes value by value.  A GPU indexes one as fast as it reads, and the rows alone travel to it,
    not 26 copies.
    """
    if rows.device.type != "cpu":
        return lambda starts: strided_windows(rows, width)[torch.from_numpy(starts).to(rows.device)]
    row = rows.shape[1] * rows.element_size()
    runs = np.ndarray(len(rows) - width + 1, f"V{width * row}", rows.view(torch.uint8).numpy(), strides=(row,))
    return lambda starts: torch.from_numpy(runs[starts].view(np.uint8).reshape(len(starts), -1)).view(rows.dtype)


def _manifest(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path} is missing: run the alignment first (python -m asr_kd.hmm)")
    cut = None
    for cut in read_jsonl(path):
        yield cut
    if cut is None:
        raise UserError(f"{path} holds no utterance: look at the skipped ones listed beside it")
