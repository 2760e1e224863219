"""Decoding by the workers of a Dask cluster: each keeps the network and the search that its first shard opened."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from asr_kd.decode.client import Search
from asr_kd.decode.pipeline import Decoder, Shard
from asr_kd.decode.worker import SearchOptions
from asr_kd.losses import Mean
from asr_kd.parallel import run_all


@dataclass(frozen=True)
class Recogniser:
    """What a decoder is made of.

    Attributes:
        models: networks' folders, or the GMM's.
        features: folder with their normalisation.
        num_pdfs: senones of the graph.
        mean: of an ensemble.
        specialists: folders of specialists that have a say beside the one network.
        likeliest: so many of its likeliest senones choose which of them.
        graph: converted for k2.
        python: the interpreter with k2; None: this one.
        batch: utterances searched together, at most.
    """

    models: tuple[Path, ...]
    features: Path
    num_pdfs: int
    mean: Mean
    specialists: tuple[Path, ...]
    likeliest: int
    graph: Path
    python: Path | None
    batch: int

    @contextlib.contextmanager
    def open(self, searches: int = 1) -> Iterator[Decoder]:
        """A decoder in this process, with so many searches."""
        some = [Search(self.graph, self.python, self.num_pdfs) for _ in range(searches)]
        try:
            some[0].start()  # beside the slow imports that follow
            from asr_kd.decode.acoustics import load_scorer

            scorer = load_scorer(self.models, self.features, self.num_pdfs, self.mean, self.specialists, self.likeliest)
            yield Decoder(scorer, some, self.batch)
        finally:
            for search in some:
                search.close()


class ClusterDecoder(Decoder):
    """Decodes shards on the workers of ``executor``."""

    def __init__(self, recogniser: Recogniser, executor: Executor) -> None:
        self.recogniser, self.executor = recogniser, executor

    def decode(self, shards: Sequence[Shard], options: SearchOptions, title: str) -> None:
        for _ in run_all(self.executor, functools.partial(_decode, self.recogniser, options), shards, title, "shard"):
            pass


_lock = threading.Lock()
_open = contextlib.ExitStack()
_kept: tuple[Recogniser, Decoder] | None = None


def _decode(recogniser: Recogniser, options: SearchOptions, shard: Shard) -> None:
    global _kept
    with _lock:
        if _kept is None or _kept[0] != recogniser:
            _kept = None
            _open.close()
            _kept = recogniser, _open.enter_context(recogniser.open())
        _kept[1].shard(shard, options)
