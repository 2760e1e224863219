"""Reading of graphs as OpenFst writes them."""

import struct
from pathlib import Path

import numpy as np

from asr_kd.common.files import atomic_open
from asr_kd.common.storage import verify


def read_openfst(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The arcs of a vector FST over the tropical semiring (a file of OpenFst or kaldifst), in k2's form.

    Returns:
        arcs (N, 3) int32 (source, target, input label; −1: final), output labels (N,) int32 and scores (N,) float32
        (the weights with their sign changed).  State 0 is the start state, and the last state the only final one.

    Raises:
        ValueError: the file has another format, or is damaged.
    """
    try:
        return _read(path)
    except (struct.error, IndexError, OverflowError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None


def add_to_words(path: Path, out: Path, cost: float) -> None:
    """Copy a graph and add ``cost`` to the weight of every arc that has a word: a word insertion penalty.

    Raises:
        ValueError: the file has another format.
    """
    content = verify(path).read_bytes()
    values, num_states, _ = _records(path, content)
    values = values.copy()
    arcs = _arc_places(*_state_records(values, num_states))
    words = arcs[values[arcs + 1] != 0]
    values.view(np.float32)[words + 2] += np.float32(cost)
    with atomic_open(out, "wb") as file:
        file.write(content[: len(content) - values.nbytes])
        file.write(values.tobytes())


def find_arcs(path: Path, first: int) -> tuple[np.ndarray, np.ndarray]:
    """The arcs whose input label is ``first`` or higher.

    Returns:
        (N, 4) int64, their source, target, input and output label, and (N,) float32, their costs.

    Raises:
        ValueError: the file has another format.
    """
    values, num_states, _ = _records(path, verify(path).read_bytes())
    counts, offsets = _state_records(values, num_states)
    arcs = _arc_places(counts, offsets)
    found = np.flatnonzero(values[arcs] >= first)
    places = arcs[found]
    sources = np.repeat(np.arange(num_states), counts)[found]
    columns = np.stack([sources, values[places + 3], values[places], values[places + 1]], 1)
    return columns, values.view(np.float32)[places + 2]


def _read(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    content = Path(path).read_bytes()
    values, num_states, start = _records(path, content)
    return _k2_arcs(values, *_state_records(values, num_states), start)


def _records(path: str | Path, content: bytes) -> tuple[np.ndarray, int, int]:
    """The records of all states as int32 values; the number of states, and the first one."""
    magic, length = struct.unpack_from("<ii", content)
    kind = content[8 : 8 + length]
    offset = 8 + length
    (length,) = struct.unpack_from("<i", content, offset)
    arc_type = content[offset + 4 : offset + 4 + length]
    offset += 4 + length
    if magic != 2125659606 or kind != b"vector" or arc_type != b"standard":
        raise ValueError(f"{path} is not an OpenFst vector FST with standard arcs")
    _, flags, _, start, num_states, _ = struct.unpack_from("<iiQqqq", content, offset)
    if flags & 3:
        raise ValueError(f"{path} contains symbol tables: write it without them")
    values = np.frombuffer(content[offset + 40 :], dtype=np.int32)  # the slice is a copy, and thus aligned
    if not 0 <= 3 * num_states <= len(values):
        raise ValueError(f"{path} is damaged: it cannot have {num_states} states")
    return values, num_states, start


def _state_records(values: np.ndarray, num_states: int) -> tuple[np.ndarray, np.ndarray]:
    """The number of arcs of each state, and the offset of its record (weight, int64 count, four words per arc)."""
    words = values.data  # a memoryview is much faster to index than an array
    offsets, offset = [], 0
    for _ in range(num_states):
        offsets.append(offset)
        offset += 3 + 4 * words[offset + 1]
    starts = np.asarray(offsets, dtype=np.int64)
    return values[starts + 1].astype(np.int64), starts


def _arc_places(counts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Where the four words of each arc begin: input label, output label, weight, target."""
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    places: np.ndarray = np.repeat(offsets, counts) + 3 + 4 * within
    return places


def _k2_arcs(
    values: np.ndarray, counts: np.ndarray, offsets: np.ndarray, start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    num_states = len(counts)
    source = np.repeat(np.arange(num_states, dtype=np.int32), counts)
    records = values[_arc_places(counts, offsets)[:, None] + np.arange(4)]
    weights = np.ascontiguousarray(records[:, 2]).view(np.float32)
    finals = values[offsets].view(np.float32)
    ends = np.flatnonzero(np.isfinite(finals)).astype(np.int32)
    arcs = np.concatenate(
        [
            np.stack([source, records[:, 3], records[:, 0]], axis=1),
            np.stack([ends, np.full_like(ends, num_states), np.full_like(ends, -1)], axis=1),
        ]
    )
    outputs = np.concatenate([records[:, 1], np.full_like(ends, 0)])
    scores = -np.concatenate([weights, finals[ends]])
    if start != 0:  # k2 starts at state 0
        renumbered = np.arange(num_states + 1, dtype=np.int32)
        renumbered[[0, start]] = start, 0
        arcs[:, :2] = renumbered[arcs[:, :2]]
    order = np.argsort(arcs[:, 0], kind="stable")
    return arcs[order], outputs[order], scores[order]
