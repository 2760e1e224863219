"""The k2 search, and the process that runs it under the interpreter that has k2.

That interpreter has neither asr_kd nor its dependencies, and runs this file by its path.  The search therefore stays
in this one file, which imports only the standard library and NumPy, and torch and k2 once a graph is loaded.  The
parent process imports it too: for the wire format, for what the kernel shares, and for k2 with ``--in-process``.

    python worker.py prepare FOLDER              converts a graph, which is a message on stdin, once
    python worker.py serve FOLDER DESCRIPTOR     answers requests on stdin with replies on that file descriptor

A message is two little-endian uint64 (the sizes of the header and of the arrays in bytes), a JSON header whose
``arrays`` lists the dtype and shape of each array, and the raw bytes of the arrays.  Replies have their own pipe
because libraries print to stdout.  k2 aborts its process when one of its checks fails, so the parent treats a closed
pipe as the death of the worker.
"""

import dataclasses
import itertools
import json
import os
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import numpy as np

#: Part of a prepared graph's folder name: increment it when the conversion changes.
GRAPH_FORMAT = 2
#: File of a prepared graph with the checksums of its arrays.
CHECKSUMS = "checksums.json"
#: Lattice beam where only the best path is needed: a narrow one saves a fifth of the time and half the memory.
ONE_BEST_LATTICE_BEAM = 1.0
_SIZES = struct.Struct("<QQ")
_DTYPES = ("float32", "int32")


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """Options of one search.  Scores are natural logarithms; higher is better.

    Attributes:
        beam: paths whose scaled score is this much below the best path of the same frame are pruned.
        lattice_beam: lattice arcs whose best path is this much below the best path of the lattice are pruned; used
            only with a grid or ``lattice``.
        min_active, max_active: bounds on the active states per frame; k2 requires max_active > min_active.
        acoustic_scale: factor of the acoustic scores before they are added to the graph's scores.
        insertion_penalty: subtracted from the score of a path for each of its words.
        scales, penalties: a grid of values of the two options above; the lattice of the search is rescored at each
            point (empty: no grid).
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

    @property
    def output_beam(self) -> float:
        """The lattice beam of the search."""
        return self.lattice_beam if self.lattice or self.scales else ONE_BEST_LATTICE_BEAM


@dataclasses.dataclass
class Lattice:
    """The lattice of one utterance; state 0 is the start state, the last state is final (label −1 leads into it).

    Attributes:
        arcs: (N, 3) int32: source state, target state, label (pdf + 1; each arc takes one frame; −1: final).
        scores: (N, 2) float32: graph score (without insertion penalty), acoustic score times its scale.
        words, row_splits: the word ids of arc n are words[row_splits[n] : row_splits[n + 1]].
    """

    arcs: np.ndarray
    scores: np.ndarray
    words: np.ndarray
    row_splits: np.ndarray


@dataclasses.dataclass
class Hypothesis:
    """The best path of one utterance.

    Attributes:
        words: word ids; None when no path reached the end of the graph.
        acoustic: sum of the acoustic scores times acoustic_scale.
        graph: sum of the graph scores (transitions, pronunciations, language model), without insertion penalty.
        grid: the distinct word sequences over the grid of scales × penalties.
        grid_index: index into ``grid`` of the best sequence at each point; penalties vary fastest.
        confidences: the posterior probability of each word, where the second pass has computed them.
        times: the first frame of each word and the one after its last, where the second pass has found them.
    """

    words: list[int] | None
    acoustic: float = 0.0
    graph: float = 0.0
    grid: list[list[int]] = dataclasses.field(default_factory=list)
    grid_index: list[int] = dataclasses.field(default_factory=list)
    lattice: Lattice | None = None
    confidences: list[float] = dataclasses.field(default_factory=list)
    times: list[tuple[int, int]] = dataclasses.field(default_factory=list)


# ---------------------------------------------------------------------------------------------- wire format


def send(file: IO[bytes], header: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Write one message."""
    arrays = [np.ascontiguousarray(a) for a in arrays]
    described = {**header, "arrays": [[a.dtype.name, list(a.shape)] for a in arrays]}
    text = json.dumps(described).encode()
    file.write(_SIZES.pack(len(text), sum(a.nbytes for a in arrays)) + text)
    for array in arrays:
        file.write(array.data)
    file.flush()


def receive(file: IO[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Read one message.

    Raises:
        EOFError: the other side closed the pipe, possibly in the middle of a message.
    """
    text_size, arrays_size = _SIZES.unpack(_read_exactly(file, _SIZES.size))
    header = json.loads(_read_exactly(file, text_size))
    content, offset, arrays = _read_exactly(file, arrays_size), 0, []
    for name, shape in header.pop("arrays"):
        if name not in _DTYPES:
            raise ValueError(f"arrays of dtype {name} are not supported")
        array = np.frombuffer(content, dtype=name, count=int(np.prod(shape)), offset=offset).reshape(shape)
        offset += array.nbytes
        arrays.append(array)
    return header, arrays


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    content = file.read(size)
    if len(content) != size:
        raise EOFError("the pipe was closed")
    return content


def pack_hypotheses(hypotheses: list[Hypothesis]) -> tuple[dict[str, Any], list[np.ndarray]]:
    arrays: list[np.ndarray] = []
    for hypothesis in hypotheses:
        if (lattice := hypothesis.lattice) is not None:
            arrays += [lattice.arcs, lattice.scores, lattice.words, lattice.row_splits]
    fields = ("words", "acoustic", "graph", "grid", "grid_index")
    described = [{**{k: getattr(h, k) for k in fields}, "lattice": h.lattice is not None} for h in hypotheses]
    return {"hypotheses": described}, arrays


def unpack_hypotheses(header: dict[str, Any], arrays: list[np.ndarray]) -> list[Hypothesis]:
    remaining, hypotheses = iter(arrays), []
    for fields in header["hypotheses"]:
        has_lattice = fields.pop("lattice")
        lattice = Lattice(*itertools.islice(remaining, 4)) if has_lattice else None
        hypotheses.append(Hypothesis(**fields, lattice=lattice))
    return hypotheses


# ------------------------------------------------------------------------------------------- prepared graph


def prepare(graph: Sequence[np.ndarray], folder: str | Path) -> None:
    """Convert ``graph``, as ``asr_kd.lang.openfst`` reads it, into arrays in ``folder``, unless that folder exists.

    k2's search aborts on input epsilons, so they are removed; each arc then has a list of words.  The folder appears
    only when it is complete, even if several processes convert the same graph.
    """
    folder = Path(folder)
    if folder.is_dir():
        return
    import k2
    import torch

    arcs, outputs, scores = graph
    packed = np.column_stack([arcs, scores.view(np.int32)]).astype(np.int32)
    fsa = k2.Fsa(torch.from_numpy(packed), aux_labels=torch.from_numpy(outputs.astype(np.int32)))
    fsa = k2.connect(k2.remove_epsilon(k2.connect(fsa)))
    fsa.aux_labels = fsa.aux_labels.remove_values_eq(0)
    fsa = k2.arc_sort(fsa)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".preparing-") as temporary:
        complete = Path(temporary) / folder.name
        complete.mkdir()
        arrays = {
            "arcs": fsa.arcs.values().numpy(),
            "words": fsa.aux_labels.values.numpy(),
            "splits": fsa.aux_labels.shape.row_splits(1).numpy(),
        }
        for name, array in arrays.items():
            with open(complete / f"{name}.npy", "wb") as file:  # np.save's error on a full disk has no number
                np.lib.format.write_array(SimpleNamespace(write=file.write), array, allow_pickle=False)
        checksums = {name: _checksum(array) for name, array in arrays.items()}
        (complete / CHECKSUMS).write_text(json.dumps(checksums), encoding="utf-8")
        try:
            os.rename(complete, folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process finished first, with the same arrays
                raise


def load_prepared(folder: Path) -> list[np.ndarray]:
    """The arrays of a prepared graph: arcs, words, splits.

    Raises:
        ValueError: one of them is missing or damaged.
    """
    arrays = []
    try:
        checksums = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
        for name in ("arcs", "words", "splits"):
            arrays.append(np.load(folder / f"{name}.npy", allow_pickle=False))
            if _checksum(arrays[-1]) != checksums[name]:
                raise ValueError(f"the checksum of {name}.npy differs")
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} is damaged ({error}): delete that folder and decode again") from None
    return arrays


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data, zlib.crc32(f"{array.dtype} {array.shape}".encode()))


# ---------------------------------------------------------------------------------------------------- search


class Graph:
    """A prepared graph.

    Attributes:
        arcs: (N, 4) int32: source, target, label and the bits of the score, by source.
        words, row_splits: the word ids of arc n are words[row_splits[n] : row_splits[n + 1]].
        word_counts: number of words of each arc, (N,) float32.
        scores: of the arcs, without insertion penalty, (N,) float32.
        num_labels: the highest label.
    """

    def __init__(self, folder: str | Path) -> None:
        self.arcs, self.words, self.row_splits = load_prepared(Path(folder))
        self.word_counts = np.diff(self.row_splits).astype(np.float32)
        self.scores = np.ascontiguousarray(self.arcs[:, 3]).view(np.float32)
        self.num_labels = int(self.arcs[:, 2].max())

    def penalised(self, penalty: float) -> np.ndarray:
        """The scores with an insertion penalty."""
        return self.scores - np.float32(penalty) * self.word_counts

    def words_on(self, path: np.ndarray) -> np.ndarray:
        """The words on successive arcs."""
        starts, counts = self.row_splits[path], self.row_splits[path + 1] - self.row_splits[path]
        ends = np.cumsum(counts)
        return self.words[np.repeat(starts - ends + counts, counts) + np.arange(ends[-1] if len(ends) else 0)]

    def lattice(self, arcs: np.ndarray, numbers: np.ndarray, totals: np.ndarray, penalty: float) -> Lattice:
        """The lattice of arcs (N, 3) between its states that are the arcs ``numbers`` (N,) of the graph.

        Args:
            totals: their scores with the insertion penalty ``penalty``, (N,) float32.
        """
        graph = self.scores[numbers]
        acoustic = totals - (graph - np.float32(penalty) * self.word_counts[numbers])
        row_splits = np.concatenate([[0], np.cumsum(self.word_counts[numbers], dtype=np.int32)]).astype(np.int32)
        return Lattice(arcs, np.stack([graph, acoustic], axis=1), self.words_on(numbers), row_splits)


class Searcher:
    """A beam search over one prepared graph, on one thread; ``K2Searcher`` and ``kernel.KernelSearcher`` search."""

    graph: Graph

    def search(self, scores: list[np.ndarray], options: SearchOptions) -> list[Hypothesis]:
        """The best path of each utterance.

        Args:
            scores: log-likelihoods (T, C) float32, finite, T ≥ 1, C at least the number of pdfs of the graph.
            options: where no path reaches the end of the graph, the search is repeated with a beam and max_active
                2 and then 4 times as large.
        """
        columns = scores[0].shape[1]
        if columns < self.graph.num_labels:  # the search would read past the end of a row
            raise ValueError(f"{columns} scores per frame, but the graph has labels up to {self.graph.num_labels}")
        hypotheses = [Hypothesis(None) for _ in scores]
        failed = list(range(len(scores)))
        for factor in (1, 2, 4):
            wider = dataclasses.replace(options, beam=options.beam * factor, max_active=options.max_active * factor)
            for index, item in zip(failed, self._search([scores[i] for i in failed], wider), strict=True):
                hypotheses[index] = item
            failed = [i for i in failed if hypotheses[i].words is None]
            if not failed:
                break
        return hypotheses

    def _search(self, scores: list[np.ndarray], options: SearchOptions) -> list[Hypothesis]:
        raise NotImplementedError

    def _hypothesis(
        self, path: np.ndarray, labels: np.ndarray, scores: np.ndarray, options: SearchOptions
    ) -> Hypothesis:
        """What the best path found.

        Args:
            path: its arcs in the graph, (T + 1,); empty if there is none.
            labels: of those arcs.
            scores: (T, C).
        """
        if not len(path):
            return Hypothesis(None)
        pdfs = labels[:-1] - 1
        acoustic = options.acoustic_scale * float(scores[np.arange(len(pdfs)), pdfs].sum(dtype=np.float64))
        graph = float(self.graph.scores[path].sum(dtype=np.float64))
        return Hypothesis(self.graph.words_on(path).tolist(), acoustic, graph)


class K2Searcher(Searcher):
    """k2's search; a failed k2 check aborts the process."""

    def __init__(self, folder: str | Path) -> None:
        import k2
        import torch

        torch.set_num_threads(1)
        self.k2, self.torch = k2, torch
        self.graph = Graph(folder)
        fsa = k2.Fsa(torch.from_numpy(self.graph.arcs))
        # The arc's number in the graph leads from a path to its words and graph scores.
        fsa.arc = torch.arange(len(self.graph.arcs), dtype=torch.int32)
        self.fsa = k2.create_fsa_vec([fsa])
        self.penalty = 0.0

    def _search(self, scores: list[np.ndarray], options: SearchOptions) -> list[Hypothesis]:
        order = sorted(range(len(scores)), key=lambda i: -len(scores[i]))  # k2 requires the longest first
        ordered = [scores[i] for i in order]
        lattices = self._intersect(ordered, options)
        hypotheses = self._best_paths(lattices, ordered, options)
        if options.scales:
            self._search_grid(lattices, hypotheses, options)
        if options.lattice:
            for hypothesis, lattice in zip(hypotheses, self._export(lattices), strict=True):
                hypothesis.lattice = lattice if hypothesis.words is not None else None
        return [hypotheses[place] for place in np.argsort(order)]

    def _intersect(self, scores: list[np.ndarray], options: SearchOptions) -> Any:
        """The lattices of ``scores``, as k2 returns them."""
        if options.insertion_penalty != self.penalty:
            self.fsa.scores = self.torch.from_numpy(self.graph.penalised(options.insertion_penalty))
            self.penalty = options.insertion_penalty
        padded = np.zeros((len(scores), len(scores[0]), scores[0].shape[1] + 1), dtype=np.float32)
        for row, matrix in zip(padded, scores, strict=True):  # column 0 is epsilon, which the graph does not contain
            np.multiply(matrix, np.float32(options.acoustic_scale), out=row[: len(matrix), 1:])
        segments = np.array([[i, 0, len(m)] for i, m in enumerate(scores)], dtype=np.int32)
        dense = self.k2.DenseFsaVec(self.torch.from_numpy(padded), self.torch.from_numpy(segments))
        return self.k2.intersect_dense_pruned(
            self.fsa,
            dense,
            search_beam=options.beam,
            output_beam=options.output_beam,
            min_active_states=options.min_active,
            max_active_states=options.max_active,
        )

    def _best_paths(self, lattices: Any, scores: list[np.ndarray], options: SearchOptions) -> list[Hypothesis]:
        best = self.k2.shortest_path(lattices, use_double_scores=True)
        arcs, labels = best.arc.numpy(), best.labels.numpy()
        return [
            self._hypothesis(arcs[begin:end], labels[begin:end], matrix, options)
            for matrix, (begin, end) in zip(scores, _arc_bounds(best), strict=True)
        ]

    def _search_grid(self, lattices: Any, hypotheses: list[Hypothesis], options: SearchOptions) -> None:
        """Fill ``grid`` and ``grid_index`` of every hypothesis by rescoring the lattices."""
        arcs, total = lattices.arc.numpy(), lattices.scores.numpy().copy()
        indices: list[dict[tuple[int, ...], int]] = [{} for _ in hypotheses]
        for rescored in grid_scores(self.graph, arcs, total, options):
            lattices.scores = self.torch.from_numpy(rescored)
            best = self.k2.shortest_path(lattices, use_double_scores=True)
            path = best.arc.numpy()
            for hypothesis, index, (begin, end) in zip(hypotheses, indices, _arc_bounds(best), strict=True):
                words = tuple(self.graph.words_on(path[begin:end]).tolist())
                hypothesis.grid_index.append(index.setdefault(words, len(index)))
        lattices.scores = self.torch.from_numpy(total)
        for hypothesis, index in zip(hypotheses, indices, strict=True):
            hypothesis.grid = [list(words) for words in index]

    def _export(self, lattices: Any) -> list[Lattice]:
        """k2's lattices as arrays."""
        numbers, values, totals = lattices.arc.numpy(), lattices.arcs.values().numpy(), lattices.scores.numpy()
        return [
            self.graph.lattice(values[begin:end, :3].copy(), numbers[begin:end], totals[begin:end], self.penalty)
            for begin, end in _arc_bounds(lattices)
        ]


def grid_scores(graph: Graph, numbers: np.ndarray, totals: np.ndarray, options: SearchOptions) -> Iterator[np.ndarray]:
    """The scores of a lattice's arcs at each point of the grid of ``options``; see ``Graph.lattice``."""
    own, counts = graph.scores[numbers], graph.word_counts[numbers]
    acoustic = totals - (own - np.float32(options.insertion_penalty) * counts)
    for scale, penalty in itertools.product(options.scales, options.penalties):
        yield acoustic * np.float32(scale / options.acoustic_scale) + own - np.float32(penalty) * counts


def _arc_bounds(fsa_vec: Any) -> list[tuple[int, int]]:
    """The index of the first arc of each FSA, and that after its last."""
    shape = fsa_vec.arcs.shape()
    return list(itertools.pairwise(shape.row_splits(2).numpy()[shape.row_splits(1).numpy()].tolist()))


# --------------------------------------------------------------------------------------------------- process


def serve(folder: str, requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer ``requests`` until that pipe is closed."""
    try:
        searcher = K2Searcher(folder)
    except Exception as error:
        send(replies, {"error": f"{type(error).__name__}: {error}"}, [])
        return
    send(replies, {"ready": True}, [])
    while True:
        try:
            header, arrays = receive(requests)
        except EOFError:
            return
        started = time.process_time()
        try:
            reply, content = pack_hypotheses(searcher.search(arrays, SearchOptions(**header["options"])))
        except Exception as error:  # the parent decides what to do with the batch
            reply, content = {"error": f"{type(error).__name__}: {error}"}, []
        send(replies, {**reply, "seconds": time.process_time() - started}, content)


def main(arguments: list[str]) -> None:
    if len(arguments) == 2 and arguments[0] == "prepare":
        prepare(receive(sys.stdin.buffer)[1], arguments[1])
    elif len(arguments) == 3 and arguments[0] == "serve":
        serve(arguments[1], sys.stdin.buffer, os.fdopen(int(arguments[2]), "wb"))
    else:
        sys.exit("usage: worker.py prepare FOLDER < GRAPH | worker.py serve FOLDER DESCRIPTOR")


if __name__ == "__main__":
    del sys.path[0]  # this file's folder, whose modules must not shadow those of libraries
    main(sys.argv[1:])
