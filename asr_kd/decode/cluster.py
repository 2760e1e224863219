"""Decoding on the workers of a Dask cluster; each keeps its network and its search from one shard to the next."""

import functools
import threading
from collections.abc import Iterable
from concurrent.futures import Executor

from asr_kd.common.parallel import run_all
from asr_kd.decode.client import SearchPool
from asr_kd.decode.pipeline import Decoder, Shard, build_decoder
from asr_kd.decode.recogniser import Recogniser
from asr_kd.decode.worker import SearchOptions


class ClusterDecoder(Decoder):
    """Decodes shards on the workers of ``executor``."""

    def __init__(self, recogniser: Recogniser, executor: Executor) -> None:
        self.recogniser, self.executor = recogniser, executor

    def decode_shards(self, shards: Iterable[Shard], options: SearchOptions, title: str, total: int) -> None:
        decode = functools.partial(_decode_shard, self.recogniser, options)
        for _ in run_all(self.executor, decode, shards, title, "shard", total):
            pass


_lock = threading.Lock()
_pool = SearchPool()
_current: tuple[Recogniser, Decoder] | None = None


def _decode_shard(recogniser: Recogniser, options: SearchOptions, shard: Shard) -> None:
    global _current
    with _lock:
        if _current is None or _current[0] != recogniser:
            searches = _pool(1, recogniser.graph, recogniser.by, recogniser.num_pdfs)
            _current = recogniser, build_decoder(recogniser, searches)
        _current[1].decode_shard(shard, options)
