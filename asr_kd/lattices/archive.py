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
#: An arc between states as an archive numbers them.
WIDE = np.dtype([("source", "i8"), ("target", "i8"), ("pdf", "i8"), ("graph", "f8"), ("acoustic", "f8")])
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
    arcs, ends = _read(lines, penalty)
    final = (arcs["pdf"] < 0) & np.isin(arcs["target"], list(ends)) & ~np.isin(arcs["target"], arcs["source"])
    for number in np.flatnonzero(final):
        arcs["graph"][number] += ends[int(arcs["target"][number])]
    _skip(arcs, (arcs["pdf"] < 0) & ~final)
    frames = arcs[arcs["pdf"] >= 0]
    reached = [(state, 0, -1, score, 0.0) for state, score in ends.items() if state in set(frames["target"].tolist())]
    arcs = np.concatenate([frames, arcs[final], np.array(reached, WIDE)])
    arcs["target"][arcs["pdf"] < 0] = arcs["target"].max() + 1  # one last state
    arcs = _connected(arcs)
    time = _times(arcs["source"], arcs["target"])
    place = _places(time)
    rows = np.zeros(len(arcs), ARC)
    rows["frame"], rows["source"], rows["target"] = time[arcs["source"]], place[arcs["source"]], place[arcs["target"]]
    for name in ("pdf", "graph", "acoustic"):
        rows[name] = arcs[name]
    return _merged(rows)


def _read(lines: Sequence[bytes], penalty: float) -> tuple[np.ndarray, dict[int, float]]:
    """Return the arcs of lines, of type ``WIDE`` (pdf −1: without a frame), and the scores of the final states."""
    rows = b"".join(lines).replace(b"\t", b" ").split(b"\n")[:-1]
    # Costs of zero may be left out.
    values = _numbers([row if b"," in row else row + b" 0,0" for row in rows if row.count(b" ") >= 3], 6)
    ends = _numbers([row if b"," in row else row + b" 0,0" for row in rows if row.count(b" ") < 3], 3)
    if not len(values) or not len(ends) or min(values[:, :3].min(), ends[:, 0].min()) < 0:
        raise ValueError("a lattice has no arcs, no final state, or negative states or labels")
    arcs = np.zeros(len(values), WIDE)
    arcs["source"], arcs["target"], arcs["pdf"] = values[:, 0], values[:, 1], values[:, 2] - 1
    arcs["graph"], arcs["acoustic"] = -values[:, 4] - penalty * (values[:, 3] > 0), -values[:, 5]
    return arcs, {int(state): -cost for state, cost, _ in ends}


def _numbers(lines: Sequence[bytes], columns: int) -> np.ndarray:
    numbers = np.fromstring(b" ".join(lines).replace(b",", b" ").decode(), sep=" ")
    if len(numbers) != columns * len(lines) or not np.isfinite(numbers).all():
        raise ValueError("a lattice has lines that are not numbers")
    return numbers.reshape(-1, columns)


def _skip(arcs: np.ndarray, silent: np.ndarray) -> None:
    """Let arcs that follow an arc without a frame begin where that one does, with its score."""
    behind = arcs["target"][silent]
    if np.isin(behind, np.concatenate([arcs["target"][~silent], [0]])).any() or len(np.unique(behind)) < len(behind):
        raise ValueError("a lattice has arcs without a frame that meet others")
    before, score = np.arange(arcs["target"].max() + 1), np.zeros(arcs["target"].max() + 1)
    before[behind], score[behind] = arcs["source"][silent], arcs["graph"][silent]
    for _ in range(len(behind)):
        if (before[arcs["source"]] == arcs["source"]).all():
            break
        arcs["graph"] += score[arcs["source"]]
        arcs["source"] = before[arcs["source"]]


def on_paths(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return which arcs (A,) bool are on a path from state 0 to the last state: pruning leaves dead ends."""
    last = target.max()
    kept, count = np.ones(len(source), bool), 0
    while count != (count := int(kept.sum())):
        begins, ends = np.zeros((2, last + 1), bool)
        begins[source[kept]] = ends[target[kept]] = begins[last] = ends[0] = True
        kept &= begins[target] & ends[source]
    return kept


def _connected(arcs: np.ndarray) -> np.ndarray:
    """Return the arcs that are on a path, between states numbered anew."""
    arcs = arcs[on_paths(arcs["source"], arcs["target"])]
    if not len(arcs):
        raise ValueError("a lattice has no path")
    _, numbers = np.unique([arcs["source"], arcs["target"]], return_inverse=True)
    arcs["source"], arcs["target"] = numbers.reshape(2, -1)
    return arcs


def _times(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the frames before each state: the length of any path to it, found in log(length) steps."""
    states = int(target.max()) + 1
    before = np.arange(states)
    before[target] = source
    time = (before != np.arange(states)).astype(np.int64)
    for _ in range(states.bit_length()):
        time, before = time + time[before], before[before]
    if before[0] or before[source].any() or (time[target] != time[source] + 1).any():
        raise ValueError("a lattice has arcs that do not take one frame each, or ends in different frames")
    return time


def _places(time: np.ndarray) -> np.ndarray:
    """Return the number of each state among those of its time."""
    order = np.argsort(time, kind="stable")
    place = np.empty_like(time)
    place[order] = np.arange(len(time)) - np.searchsorted(time[order], time[order])
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
