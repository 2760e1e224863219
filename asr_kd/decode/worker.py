"""The search itself, and the process that runs it.

Run by its path under the interpreter that has k2, where asr_kd and what it needs are absent: this file
imports the standard library and NumPy, and torch and k2 once a graph is loaded.  The parent process imports
it too, for the wire format and (``--in-process``) for the search itself.

    python worker.py prepare HCLG.fst FOLDER     converts a graph once
    python worker.py serve FOLDER DESCRIPTOR     answers frames on stdin with frames on that file descriptor

A frame is two little-endian uint64 (bytes of the header, bytes of the arrays), a JSON header whose
``arrays`` lists each array's dtype and shape, and the arrays' raw bytes.  Libraries print to stdout, so the
answers have a pipe of their own; k2 aborts its process when one of its checks fails, so the parent takes
a closed pipe for a worker that died.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

#: Goes into the name of a prepared graph: raise it when the conversion changes.
FORMAT = 1
#: Lattice beam where only the best path is wanted: a narrow one saves a fifth of the time and half the memory.
NARROW = 1.0
_SIZES = struct.Struct("<QQ")
_DTYPES = ("float32", "int32")


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """What one search does.  Scores are natural logarithms; better is larger.

    Attributes:
        beam: paths this much worse than the best one of their frame are dropped (after scaling).
        lattice_beam: lattice arcs whose best path is this much worse than the best path are dropped; counts
            with a grid or ``lattice`` only.
        min_active, max_active: bounds on states kept a frame; k2 wants max_active > min_active.
        acoustic_scale: multiplies the acoustic scores before they meet the graph's.
        insertion_penalty: taken off a path's score for each of its words.
        scales, penalties: a grid of the two values above; the best path at each point is found again in the
            lattice of the search (empty: no grid).
        lattice: also return the lattice.
    """

    beam: float = 13.0
    lattice_beam: float = 4.0
    min_active: int = 30
    max_active: int = 2500
    acoustic_scale: float = 0.07
    insertion_penalty: float = 0.0
    scales: tuple[float, ...] = ()
    penalties: tuple[float, ...] = ()
    lattice: bool = False


@dataclasses.dataclass
class Lattice:
    """One utterance's lattice; state 0 is the start, the last state is final (label −1 leads into it).

    Attributes:
        arcs: (N, 3) int32: from state, to state, label (pdf + 1; one frame an arc; −1: final).
        scores: (N, 2) float32: graph score (without insertion penalty), acoustic score times its scale.
        words, splits: word ids of arc n are words[splits[n] : splits[n + 1]].
    """

    arcs: np.ndarray
    scores: np.ndarray
    words: np.ndarray
    splits: np.ndarray


@dataclasses.dataclass
class Found:
    """The best path of one utterance.

    Attributes:
        words: word ids; None when no path reached the end of the graph.
        acoustic: sum of acoustic scores times acoustic_scale.
        graph: sum of graph scores (transitions, pronunciations, language model), without insertion penalty.
        grid: distinct word sequences over the grid of scales × penalties.
        grid_index: which of ``grid`` is best at each point, scales slowest.
    """

    words: list[int] | None
    acoustic: float = 0.0
    graph: float = 0.0
    grid: list[list[int]] = dataclasses.field(default_factory=list)
    grid_index: list[int] = dataclasses.field(default_factory=list)
    lattice: Lattice | None = None


# ---------------------------------------------------------------------------------------------- wire format


def send(file: IO[bytes], header: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Write one frame."""
    arrays = [np.ascontiguousarray(a) for a in arrays]
    described = {**header, "arrays": [[a.dtype.name, list(a.shape)] for a in arrays]}
    text = json.dumps(described).encode()
    file.write(_SIZES.pack(len(text), sum(a.nbytes for a in arrays)) + text)
    for array in arrays:
        file.write(array.data)
    file.flush()


def receive(file: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read one frame.

    Raises:
        EOFError: the other side closed the pipe, even in the middle of a frame.
    """
    text_size, arrays_size = _SIZES.unpack(_exactly(file, _SIZES.size))
    header = json.loads(_exactly(file, text_size))
    content, at, arrays = _exactly(file, arrays_size), 0, []
    for name, shape in header.pop("arrays"):
        if name not in _DTYPES:
            raise ValueError(f"arrays of {name} do not travel")
        array = np.frombuffer(content, dtype=name, count=int(np.prod(shape)), offset=at).reshape(shape)
        at += array.nbytes
        arrays.append(array)
    return header, arrays


def _exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError("the pipe was closed")
    return content


def pack_found(found: list[Found]) -> tuple[dict[str, Any], list[np.ndarray]]:
    arrays: list[np.ndarray] = []
    for item in found:
        if item.lattice is not None:
            arrays += [item.lattice.arcs, item.lattice.scores, item.lattice.words, item.lattice.splits]
    fields = ("words", "acoustic", "graph", "grid", "grid_index")
    described = [{**{k: getattr(f, k) for k in fields}, "lattice": f.lattice is not None} for f in found]
    return {"found": described}, arrays


def unpack_found(header: dict[str, Any], arrays: list[np.ndarray]) -> list[Found]:
    left, found = iter(arrays), []
    for item in header["found"]:
        has_lattice = item.pop("lattice")
        lattice = Lattice(next(left), next(left), next(left), next(left)) if has_lattice else None
        found.append(Found(**item, lattice=lattice))
    return found


# ------------------------------------------------------------------------------------------- graph, prepared


def read_openfst(path: str | Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A vector FST over the tropical semiring, as OpenFst and kaldifst write it, as k2 wants it.

    Returns:
        arcs (N, 3) int32 (from, to, input label; −1: final), output labels (N,) int32 and scores (N,) float32
        (weights with the opposite sign).  The start is state 0 and the one final state is the last.

    Raises:
        ValueError: not such a file.
    """
    content = Path(path).read_bytes()
    magic, length = struct.unpack_from("<ii", content)
    kind = content[8 : 8 + length]
    at = 8 + length
    (length,) = struct.unpack_from("<i", content, at)
    arc_type = content[at + 4 : at + 4 + length]
    at += 4 + length
    if magic != 2125659606 or kind != b"vector" or arc_type != b"standard":
        raise ValueError(f"{path} is not an OpenFst vector FST with standard arcs")
    _, flags, _, start, num_states, _ = struct.unpack_from("<iiQqqq", content, at)
    if flags & 3:
        raise ValueError(f"{path} carries symbol tables: write it without")
    values = np.frombuffer(content[at + 40 :], dtype=np.int32)  # copied, so that it is aligned
    counts, offsets = _state_offsets(values, num_states)
    return _k2_arcs(values, counts, offsets, start)


def _state_offsets(values: np.ndarray, num_states: int) -> tuple[np.ndarray, np.ndarray]:
    """Arcs of each state, and where its record (weight, int64 count, four words an arc) begins."""
    words = values.data  # much faster to index than an array
    offsets, at = [], 0
    for _ in range(num_states):
        offsets.append(at)
        at += 3 + 4 * words[at + 1]
    starts = np.asarray(offsets, dtype=np.int64)
    return values[starts + 1].astype(np.int64), starts


def _k2_arcs(
    values: np.ndarray, counts: np.ndarray, offsets: np.ndarray, start: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    num_states = len(counts)
    source = np.repeat(np.arange(num_states, dtype=np.int32), counts)
    within = np.arange(len(source)) - np.repeat(np.cumsum(counts) - counts, counts)
    records = values[(np.repeat(offsets, counts) + 3 + 4 * within)[:, None] + np.arange(4)]
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
        renamed = np.arange(num_states + 1, dtype=np.int32)
        renamed[[0, start]] = start, 0
        arcs[:, :2] = renamed[arcs[:, :2]]
    order = np.argsort(arcs[:, 0], kind="stable")
    return arcs[order], outputs[order], scores[order]


def prepare(graph: str | Path, folder: str | Path) -> None:
    """Convert ``graph`` (HCLG.fst) into arrays in ``folder``; does nothing when they are there.

    k2's search aborts on input epsilons, so they are removed; a path's words then sit in lists on the arcs.
    The folder appears whole under its name or not at all, whoever else converts the same graph.
    """
    folder = Path(folder)
    if folder.is_dir():
        return
    import k2

    arcs, outputs, scores = read_openfst(graph)
    packed = np.column_stack([arcs, scores.view(np.int32)]).astype(np.int32)
    fsa = k2.Fsa(torch.from_numpy(packed), aux_labels=torch.from_numpy(outputs.astype(np.int32)))
    fsa = k2.connect(k2.remove_epsilon(k2.connect(fsa)))
    fsa.aux_labels = fsa.aux_labels.remove_values_eq(0)
    fsa = k2.arc_sort(fsa)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".preparing-") as temporary:
        made = Path(temporary) / folder.name
        made.mkdir()
        np.save(made / "arcs.npy", fsa.arcs.values().numpy(), allow_pickle=False)
        np.save(made / "words.npy", fsa.aux_labels.values.numpy(), allow_pickle=False)
        np.save(made / "splits.npy", fsa.aux_labels.shape.row_splits(1).numpy(), allow_pickle=False)
        try:
            os.rename(made, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first with the same arrays
                raise


# ---------------------------------------------------------------------------------------------------- search


class Searcher:
    """k2's beam search over one prepared graph, on one thread."""

    def __init__(self, folder: str | Path) -> None:
        import k2

        torch.set_num_threads(1)
        self.k2, self.torch = k2, torch
        folder = Path(folder)
        arcs = np.load(folder / "arcs.npy", allow_pickle=False)
        self.words = np.load(folder / "words.npy", allow_pickle=False)
        self.splits = np.load(folder / "splits.npy", allow_pickle=False)
        self.counts = np.diff(self.splits).astype(np.float32)
        self.graph_scores = np.ascontiguousarray(arcs[:, 3]).view(np.float32)
        self.num_labels = int(arcs[:, 2].max())
        fsa = k2.Fsa(torch.from_numpy(arcs))
        # Everything else about a path is looked up through the graph's arc number.
        fsa.arc = torch.arange(len(arcs), dtype=torch.int32)
        self.graph = k2.create_fsa_vec([fsa])
        self.penalty = 0.0

    def search(self, scores: list[np.ndarray], options: SearchOptions) -> list[Found]:
        """The best path of each utterance.

        Args:
            scores: log-likelihoods (T, C) float32, finite, T ≥ 1, C at least the graph's pdfs.
            options: an utterance whose beam missed the graph's end is searched again with wider ones, twice.
        """
        found: list[Found] = [Found(None) for _ in scores]
        left = list(range(len(scores)))
        for widening in (1, 2, 4):
            wider = dataclasses.replace(options, beam=options.beam * widening, max_active=options.max_active * widening)
            for index, item in zip(left, self._search([scores[i] for i in left], wider), strict=True):
                found[index] = item
            left = [i for i in left if found[i].words is None]
            if not left:
                break
        return found

    def _search(self, scores: list[np.ndarray], options: SearchOptions) -> list[Found]:
        order = sorted(range(len(scores)), key=lambda i: -len(scores[i]))  # k2 wants longest first
        ordered = [scores[i] for i in order]
        lattices = self._lattices(ordered, options)
        found = self._best(lattices, ordered, options)
        if options.scales:
            self._sweep(lattices, found, options)
        if options.lattice:
            for item, lattice in zip(found, self._arrays(lattices), strict=True):
                item.lattice = lattice if item.words is not None else None
        return [found[place] for place in np.argsort(order)]

    def _lattices(self, scores: list[np.ndarray], options: SearchOptions) -> Any:
        if options.insertion_penalty != self.penalty:
            penalised = self.graph_scores - np.float32(options.insertion_penalty) * self.counts
            self.graph.scores = self.torch.from_numpy(penalised)
            self.penalty = options.insertion_penalty
        columns = scores[0].shape[1]
        if columns < self.num_labels:  # k2 would read past the end of a row
            raise ValueError(f"{columns} scores a frame, but the graph asks for {self.num_labels}")
        padded = np.zeros((len(scores), len(scores[0]), columns + 1), dtype=np.float32)
        for row, matrix in zip(padded, scores, strict=True):  # column 0 is epsilon, which the graph has not
            np.multiply(matrix, np.float32(options.acoustic_scale), out=row[: len(matrix), 1:])
        segments = np.array([[i, 0, len(m)] for i, m in enumerate(scores)], dtype=np.int32)
        dense = self.k2.DenseFsaVec(self.torch.from_numpy(padded), self.torch.from_numpy(segments))
        return self.k2.intersect_dense_pruned(
            self.graph,
            dense,
            search_beam=options.beam,
            output_beam=options.lattice_beam if options.lattice or options.scales else NARROW,
            min_active_states=options.min_active,
            max_active_states=options.max_active,
        )

    def _best(self, lattices: Any, scores: list[np.ndarray], options: SearchOptions) -> list[Found]:
        best = self.k2.shortest_path(lattices, use_double_scores=True)
        arcs, labels, found = best.arc.numpy(), best.labels.numpy(), []
        for matrix, (begin, end) in zip(scores, _arc_bounds(best), strict=True):
            if begin == end:
                found.append(Found(None))
                continue
            path, pdfs = arcs[begin:end], labels[begin : end - 1] - 1
            acoustic = options.acoustic_scale * float(matrix[np.arange(len(pdfs)), pdfs].sum(dtype=np.float64))
            graph = float(self.graph_scores[path].sum(dtype=np.float64))
            found.append(Found(self._words(path), acoustic, graph))
        return found

    def _sweep(self, lattices: Any, found: list[Found], options: SearchOptions) -> None:
        """Fill ``grid`` and ``grid_index`` of every utterance from the lattices."""
        arcs, total = lattices.arc.numpy(), lattices.scores.numpy().copy()
        graph, counts = self.graph_scores[arcs], self.counts[arcs]
        acoustic = total - (graph - np.float32(options.insertion_penalty) * counts)
        seen: list[dict[tuple[int, ...], int]] = [{} for _ in found]
        for scale in options.scales:
            for penalty in options.penalties:
                ratio = np.float32(scale / options.acoustic_scale)
                lattices.scores = self.torch.from_numpy(acoustic * ratio + graph - np.float32(penalty) * counts)
                best = self.k2.shortest_path(lattices, use_double_scores=True)
                path = best.arc.numpy()
                for item, known, (begin, end) in zip(found, seen, _arc_bounds(best), strict=True):
                    words = tuple(self._words(path[begin:end]))
                    item.grid_index.append(known.setdefault(words, len(known)))
        lattices.scores = self.torch.from_numpy(total)
        for item, known in zip(found, seen, strict=True):
            item.grid = [list(words) for words in known]

    def _arrays(self, lattices: Any) -> list[Lattice]:
        arcs, values = lattices.arc.numpy(), lattices.arcs.values().numpy()
        graph = self.graph_scores[arcs]
        acoustic = lattices.scores.numpy() - (graph - np.float32(self.penalty) * self.counts[arcs])
        scores = np.stack([graph, acoustic], axis=1)
        found = []
        for begin, end in _arc_bounds(lattices):
            own = arcs[begin:end]
            splits = np.concatenate([[0], np.cumsum(np.diff(self.splits)[own])]).astype(np.int32)
            words = np.array(self._words(own), dtype=np.int32)
            found.append(Lattice(values[begin:end, :3].copy(), scores[begin:end], words, splits))
        return found

    def _words(self, path: np.ndarray) -> list[int]:
        """Words on the graph's arcs ``path``."""
        spoken = path[self.counts[path] > 0]
        return [int(w) for arc in spoken for w in self.words[self.splits[arc] : self.splits[arc + 1]]]


def _arc_bounds(fsa_vec: Any) -> list[tuple[int, int]]:
    """Where each FSA's arcs begin and end."""
    shape = fsa_vec.arcs.shape()
    return list(itertools.pairwise(shape.row_splits(2).numpy()[shape.row_splits(1).numpy()].tolist()))


# --------------------------------------------------------------------------------------------------- process


def serve(folder: str, requests: IO[bytes], frames: IO[bytes]) -> None:
    """Answer frames from ``requests`` until it closes."""
    try:
        searcher = Searcher(folder)
    except Exception as error:
        send(frames, {"error": f"{type(error).__name__}: {error}"}, [])
        return
    send(frames, {"ready": True}, [])
    while True:
        try:
            header, arrays = receive(requests)
        except EOFError:
            return
        started = time.process_time()
        try:
            reply, content = pack_found(searcher.search(arrays, SearchOptions(**header["options"])))
        except Exception as error:  # the parent decides what becomes of the batch
            reply, content = {"error": f"{type(error).__name__}: {error}"}, []
        send(frames, {**reply, "seconds": time.process_time() - started}, content)


def main(arguments: list[str]) -> None:
    if len(arguments) == 3 and arguments[0] == "prepare":
        prepare(arguments[1], arguments[2])
    elif len(arguments) == 3 and arguments[0] == "serve":
        serve(arguments[1], sys.stdin.buffer, os.fdopen(int(arguments[2]), "wb"))
    else:
        sys.exit("usage: worker.py prepare HCLG.fst FOLDER | worker.py serve FOLDER DESCRIPTOR")


if __name__ == "__main__":
    del sys.path[0]  # this file's folder: no module in it may stand in for a library's
    main(sys.argv[1:])
