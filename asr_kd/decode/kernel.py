"""k2's search without k2: the same lattices, to the bit, from a kernel that the machine's C++ compiler builds.

k2 lets each of a dozen operations pass over all arcs of a frame, as suits a GPU, and prunes in a second thread.  The
kernel goes through the arcs of a frame three times, and needs neither k2's interpreter nor a process of its own.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from pathlib import Path

import numpy as np

from asr_kd.common.compiled import compiled
from asr_kd.common.errors import UserError
from asr_kd.decode.worker import Graph, Hypothesis, Searcher, SearchOptions, grid_scores

SOURCE = Path(__file__).with_name("beam_search.cpp")
FLAGS = ["-ffp-contract=off"]  # a product and a sum are rounded one by one, as in k2


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernel; None without a compiler."""
    loaded = compiled(SOURCE, FLAGS)
    if loaded is not None:
        pointer, size, real, number = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int32
        loaded.search_new.argtypes, loaded.search_new.restype = [pointer, number], pointer
        loaded.search_delete.argtypes, loaded.search_delete.restype = [pointer], None
        loaded.search_run.argtypes = [pointer, pointer, pointer, size, size, real, real, real, number, number]
        loaded.search_run.restype = size
        loaded.search_take.argtypes, loaded.search_take.restype = [pointer] * 4, None
        loaded.best_path.argtypes, loaded.best_path.restype = [pointer, pointer, size, pointer], size
    return loaded


def required() -> ctypes.CDLL:
    """The kernel.

    Raises:
        UserError: there is no compiler.
    """
    loaded = library()
    if loaded is None:
        raise UserError(
            "--search kernel needs a C++ compiler (CXX, c++, g++ or clang++): install one, or leave out the flag"
        )
    return loaded


class SharedGraph(Graph):
    """A prepared graph, which the searches of a process share.

    Attributes:
        first_arcs: the first arc of each state, and the number of arcs, (S + 1,) int32.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._penalty = 0.0
        num_states = int(self.arcs[:, :2].max()) + 1
        self.first_arcs = np.searchsorted(self.arcs[:, 0], np.arange(num_states + 1, dtype=np.int32)).astype(np.int32)

    def with_penalty(self, penalty: float) -> np.ndarray:
        """The arcs, their scores with an insertion penalty; other threads keep those that they have."""
        with _lock:
            if penalty != self._penalty:
                arcs = self.arcs.copy()
                arcs[:, 3] = self.penalised(penalty).view(np.int32)
                self.arcs, self._penalty = arcs, penalty
            return self.arcs


_lock = threading.Lock()
_graphs: weakref.WeakValueDictionary[Path, SharedGraph] = weakref.WeakValueDictionary()


def _shared(folder: Path) -> SharedGraph:
    """The graph in ``folder``, which is read unless another search has it."""
    with _lock:
        graph = _graphs.get(folder)
        if graph is None:
            graph = _graphs[folder] = SharedGraph(folder)
        return graph


class KernelSearcher(Searcher):
    """The kernel's search; searches in several threads run at the same time.

    Raises:
        UserError: there is no compiler.
        ValueError: the graph is damaged.
    """

    graph: SharedGraph

    def __init__(self, folder: Path) -> None:
        self.kernel, self.graph = required(), _shared(folder)
        first = self.graph.first_arcs
        self._search_pointer = self.kernel.search_new(first.ctypes.data, len(first) - 1)
        if not self._search_pointer:
            raise MemoryError
        weakref.finalize(self, self.kernel.search_delete, self._search_pointer)

    def _search(self, scores: list[np.ndarray], options: SearchOptions) -> list[Hypothesis]:
        return [self._search_one(matrix, options) for matrix in scores]

    def _search_one(self, scores: np.ndarray, options: SearchOptions) -> Hypothesis:
        links, numbers, totals = self._links(np.ascontiguousarray(scores, np.float32), options)
        path = self._best(links, totals)
        hypothesis = self._hypothesis(numbers[path], links[path, 2], scores, options)
        if hypothesis.words is None:
            return hypothesis
        if options.scales:
            index: dict[tuple[int, ...], int] = {}
            for rescored in grid_scores(self.graph, numbers, totals, options):
                words = tuple(self.graph.words_on(numbers[self._best(links, rescored)]).tolist())
                hypothesis.grid_index.append(index.setdefault(words, len(index)))
            hypothesis.grid = [list(words) for words in index]
        if options.lattice:
            hypothesis.lattice = self.graph.lattice(links, numbers, totals, options.insertion_penalty)
        return hypothesis

    def _links(self, scores: np.ndarray, options: SearchOptions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The arcs (N, 3) of the lattice, their numbers in the graph, and their scores."""
        arcs = self.graph.with_penalty(options.insertion_penalty)
        count = _enough(self.kernel.search_run(
            self._search_pointer, arcs.ctypes.data, scores.ctypes.data, *scores.shape, options.acoustic_scale,
            options.beam, options.output_beam, options.min_active, options.max_active,
        ))  # fmt: skip
        links, numbers, totals = np.empty((count, 3), np.int32), np.empty(count, np.int32), np.empty(count, np.float32)
        self.kernel.search_take(self._search_pointer, *(array.ctypes.data for array in (links, numbers, totals)))
        return links, numbers, totals

    def _best(self, links: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """The links of the best path."""
        path = np.empty(len(links), np.int32)
        count = _enough(self.kernel.best_path(links.ctypes.data, totals.ctypes.data, len(links), path.ctypes.data))
        return path[:count][::-1]


def _enough(count: int) -> int:
    if count < 0:
        raise MemoryError("there is not enough memory for the search")
    return count
