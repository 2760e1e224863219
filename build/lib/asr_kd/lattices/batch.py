"""Lattices of several utterances as tensors, level by level: all arcs of a frame are one step of the recursions."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass
class LatticeBatch:
    """The arcs of U lattices, sorted by frame; frame t of all lattices is level t.

    Attributes:
        source, target: (A,) int64 states of each arc; states are numbered level by level, first those before the first
            frame, one of each lattice.
        pdf: (A,) int64; 0 for final arcs.
        row: (A,) int64 frame of each arc among those of all utterances one after the other; 0 for final arcs.
        final: (A,) bool: arcs that take no frame and end a path.
        utterance: (A,) int64 lattice of each arc.
        graph, acoustic: (A,) float32 scores that the decoding gave.
        ends: (U,) int64 last state of each lattice.
        arc_bounds, state_bounds: where the arcs and states of each level begin.
    """

    source: Tensor
    target: Tensor
    pdf: Tensor
    row: Tensor
    final: Tensor
    utterance: Tensor
    graph: Tensor
    acoustic: Tensor
    ends: Tensor
    arc_bounds: list[int]
    state_bounds: list[int]

    @classmethod
    def of(cls, lattices: Sequence[np.ndarray], device: str = "cpu") -> LatticeBatch:
        """Return the batch of some lattices, each a table of arcs (asr_kd.lattices.archive.ARC)."""
        utterance = np.repeat(np.arange(len(lattices)), [len(arcs) for arcs in lattices])
        arcs = np.concatenate(lattices)
        order = np.argsort(arcs["frame"], kind="stable")
        arcs, utterance = arcs[order], utterance[order]
        frame = arcs["frame"].astype(np.int64)
        frames = np.array([int(lattice["frame"][-1]) for lattice in lattices])
        sizes = np.zeros((frames.max() + 2, len(lattices)), np.int64)  # states of each level and lattice
        sizes[0] = 1
        np.maximum.at(sizes, (frame + 1, utterance), arcs["target"].astype(np.int64) + 1)
        first = (np.cumsum(sizes) - sizes.ravel()).reshape(sizes.shape)
        final = arcs["pdf"] < 0
        rows = np.where(final, 0, (np.cumsum(frames) - frames)[utterance] + frame)
        arc_bounds = np.searchsorted(frame, np.arange(frames.max() + 2)).tolist()

        def tensor(column: np.ndarray) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(column)).to(device)

        return cls(
            source=tensor(first[frame, utterance] + arcs["source"]),
            target=tensor(first[frame + 1, utterance] + arcs["target"]),
            pdf=tensor(np.maximum(arcs["pdf"], 0).astype(np.int64)),
            row=tensor(rows),
            final=tensor(final),
            utterance=tensor(utterance),
            graph=tensor(arcs["graph"]),
            acoustic=tensor(arcs["acoustic"]),
            ends=tensor(first[frames + 1, np.arange(len(lattices))]),
            arc_bounds=arc_bounds,
            state_bounds=[*first[:, 0].tolist(), int(sizes.sum())],
        )
