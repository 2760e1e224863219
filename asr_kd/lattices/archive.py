"""Kaldi text archives of lattices → tables of arcs, frame by frame.

An arc of such a lattice takes one frame, and its label is pdf + 1; arcs without a label (0) take none, and lead into
the last state or carry one of several words.  ``asr_kd.decode --lattices`` writes them.  Only labels and costs matter
here: words are counted, for the insertion penalty, and dropped.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import verify

#: An arc: frame, source among the states before the frame, target among those after it, pdf (−1: final, no frame),
#: scores of the graph and of the frame (natural logarithms; the latter without its scale).  Arcs are sorted by frame,
#: target, source.  State 0 is the only one before the first frame; the final arcs lead to the only one after the last.
ARC = np.dtype([
    ("frame", "<i4"), ("source", "<u2"), ("target", "<u2"), ("pdf", "<i4"), ("graph", "<f4"), ("acoustic", "<f4"),
])  # fmt: skip
#: States per frame that fit into ``ARC``.
MAX_STATES = 2**16


def read_lattices(path: Path, penalty: float = 0.0) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the id and the arcs (A,) of every lattice of an archive.

    Args:
        path: a Kaldi text archive, packed by gzip.
        penalty: subtracted from the graph's score of each word.

    Raises:
        UserError: the archive is missing or damaged, or a lattice is none in which each arc takes one frame.
    """
    try:
        with gzip.open(verify(path), "rb") as file:
            for filled, lines in itertools.groupby(file, lambda line: line != b"\n"):
                if filled:
                    name, *arcs = lines
                    yield name.decode().strip(), parse_lattice(arcs, penalty)
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: decode that split with --lattices first (python -m asr_kd.decode)"
        ) from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): decode that split again with --lattices") from None


def parse_lattice(lines: Sequence[bytes], penalty: float = 0.0) -> np.ndarray:
    """Return the arcs (A,) of one lattice, given its lines "source target label word graph,acoustic" (costs) and
    "state graph,acoustic" of its final states.

    Raises:
        ValueError: it is no lattice in which each arc takes one frame and all paths have the same length.
    """
    lines = b"".join(lines).replace(b"\t", b" ").split(b"\n")[:-1]
    ends = [line for line in lines if line.count(b" ") < 3]
    # Costs of zero may be left out.
    values = _numbers([line if b"," in line else line + b" 0,0" for line in lines if line.count(b" ") >= 3], 6)
    if not len(values) or not ends:
        raise ValueError("a lattice has no arcs or no final state")
    source, target, label = values[:, :3].astype(np.int64).T
    if min(source.min(), target.min(), label.min()) < 0:
        raise ValueError("a lattice has negative states or labels")
    graph = -values[:, 4] - penalty * (values[:, 3] > 0)
    silent = label == 0
    last = [int(line.split()[0]) for line in ends]
    finals = {
        state: -_numbers([line], 3)[0, 1] if b"," in line else 0.0 for state, line in zip(last, ends, strict=True)
    }
    into_final = silent & np.isin(target, last) & ~np.isin(target, source)
    source, graph = _skip(source, target, graph, silent & ~into_final)
    end_states = np.concatenate([source[into_final], [s for s in last if s in set(target[~silent].tolist())]]).astype(
        int
    )
    end_scores = np.concatenate(
        [
            graph[into_final] + [finals[t] for t in target[into_final]],
            [finals[s] for s in end_states[into_final.sum() :]],
        ]
    )
    time = _times(source[~silent], target[~silent], end_states)
    frames = time[end_states].max(initial=0)
    columns = (source[~silent], target[~silent], label[~silent] - 1, graph[~silent], -values[~silent, 5])
    rows = np.zeros(len(columns[0]) + len(end_states), ARC)
    place = _places(time)
    for name, column in zip(("source", "target", "pdf", "graph", "acoustic"), columns, strict=True):
        rows[name][: len(column)] = place[column] if name in ("source", "target") else column
    rows["frame"] = np.concatenate([time[columns[0]], np.full(len(end_states), frames)])
    rows["source"][len(columns[0]) :], rows["pdf"][len(columns[0]) :] = place[end_states], -1
    rows["graph"][len(columns[0]) :] = end_scores
    return _merged(rows)


def _numbers(lines: Sequence[bytes], columns: int) -> np.ndarray:
    numbers = np.fromstring(b" ".join(lines).replace(b",", b" ").decode(), sep=" ")
    if len(numbers) != columns * len(lines) or not np.isfinite(numbers).all():
        raise ValueError("a lattice has lines that are not numbers")
    return numbers.reshape(-1, columns)


def _skip(
    source: np.ndarray, target: np.ndarray, graph: np.ndarray, silent: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Let arcs that follow an arc without a frame begin where that one does, with its score."""
    behind = target[silent]
    if np.isin(behind, np.concatenate([target[~silent], [0]])).any() or len(np.unique(behind)) < len(behind):
        raise ValueError("a lattice has arcs without a frame that meet others")
    before, score = np.arange(target.max() + 1), np.zeros(target.max() + 1)
    before[behind], score[behind] = source[silent], graph[silent]
    for _ in range(len(behind)):
        if (before[source] == source).all():
            break
        source, graph = before[source], graph + score[source]
    return source, graph


def _times(source: np.ndarray, target: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the frames before each state: the length of any path to it, found in log(length) steps."""
    states = int(max(source.max(), target.max(), ends.max(initial=0))) + 1
    before = np.arange(states)
    before[target] = source
    time = (before != np.arange(states)).astype(np.int64)
    for _ in range(states.bit_length()):
        time, before = time + time[before], before[before]
    if before[0] or before[source].any() or (time[target] != time[source] + 1).any() or len(set(time[ends])) != 1:
        raise ValueError("a lattice has arcs that do not take one frame each, or ends in different frames")
    return time


def _places(time: np.ndarray) -> np.ndarray:
    """Return the number of each state among those of its time."""
    order = np.argsort(time, kind="stable")
    first = np.searchsorted(time[order], time[order])
    place = np.empty_like(time)
    place[order] = np.arange(len(time)) - first
    if place.max() >= MAX_STATES:
        raise ValueError(f"a lattice has more than {MAX_STATES} states in a frame: lower --lattice-beam")
    return place


def _merged(rows: np.ndarray) -> np.ndarray:
    """Return sorted arcs, of which those that differ by words alone are one with the sum of their probabilities."""
    rows = rows[np.lexsort((rows["pdf"], rows["source"], rows["target"], rows["frame"]))]
    same = np.ones(len(rows) - 1, bool)
    for name in ("frame", "source", "target", "pdf"):
        same &= rows[name][1:] == rows[name][:-1]
    starts = np.flatnonzero(np.concatenate([[True], ~same]))
    merged = rows[starts]
    merged["graph"] = np.logaddexp.reduceat(rows["graph"].astype(np.float64), starts)
    return merged
