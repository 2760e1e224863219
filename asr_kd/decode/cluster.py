"""Decoding by the workers of a Dask cluster: each keeps the network of its last shard, and the search."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.parallel import run_all
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.client import Searches
from asr_kd.decode.pipeline import Decoder, Shard
from asr_kd.decode.worker import SearchOptions
from asr_kd.losses import Mean


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

    def decoder(self, searches: Searches, number: int = 1) -> Decoder:
        """A decoder in this process, with so many of ``searches``."""
        some = searches(number, self.graph, self.python, self.num_pdfs)

        scorer = load_scorer(self.models, self.features, self.num_pdfs, self.mean, self.specialists, self.likeliest)
        return Decoder(scorer, some, self.batch)


class ClusterDecoder(Decoder):
    """Decodes shards on the workers of ``executor``."""

    def __init__(self, recogniser: Recogniser, executor: Executor) -> None:
        self.recogniser, self.executor = recogniser, executor

    def decode(self, shards: Sequence[Shard], options: SearchOptions, title: str) -> None:
        for _ in run_all(self.executor, functools.partial(_decode, self.recogniser, options), shards, title, "shard"):
            pass


_lock = threading.Lock()
_searches = Searches()
_kept: tuple[Recogniser, Decoder] | None = None


def _decode(recogniser: Recogniser, options: SearchOptions, shard: Shard) -> None:
    global _kept
    with _lock:
        if _kept is None or _kept[0] != recogniser:
            _kept = recogniser, recogniser.decoder(_searches)
        _kept[1].shard(shard, options)
