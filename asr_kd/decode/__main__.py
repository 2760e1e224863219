"""python -m asr_kd.decode: words of prepared splits, or of audio files named on the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import cpu_count
from asr_kd.common.storage import Stage, read_json
from asr_kd.decode.client import Searches
from asr_kd.decode.config import Config
from asr_kd.decode.output import read_tuned
from asr_kd.decode.worker import SearchOptions

if TYPE_CHECKING:
    from asr_kd.decode.pipeline import Decoder


def main(*configs: Config, searches: Searches | None = None) -> None:
    """Do all ``configs``, one after the other.

    Args:
        searches: that earlier calls have opened; the caller closes them.
    """
    if len(configs) > 1 and any(config.files for config in configs):
        raise UserError("audio files are decoded by one command at a time: leave --and out")
    first = configs[0]
    with contextlib.ExitStack() as stack:
        kept = searches or stack.enter_context(contextlib.closing(Searches()))
        if first.files:
            return _files(first, kept)
        for config in configs:
            _splits(dataclasses.replace(config, jobs=first.jobs, scheduler=first.scheduler), kept)


def _splits(config: Config, searches: Searches) -> None:
    if config.out is None:
        raise UserError("--out DIR is missing (or name audio files to print their words)")
    optional = [path for path in (config.cuts, config.tuned) if path is not None] + _specialists(config)
    stage = Stage("decode", config.out, config, [*config.model, config.graph, config.features, *optional])
    if not stage.begin():
        return
    from asr_kd.decode.output import Words

    with _decoder(config, searches, config.jobs or cpu_count()) as decoder:
        from asr_kd.decode.splits import decode_splits

        stage.finish(**decode_splits(config, decoder, _options(config), Words(config.graph), config.out))
    shutil.rmtree(config.out / "shards")


def _files(config: Config, searches: Searches) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    from asr_kd.decode.output import Words

    with _decoder(config, searches, 1) as decoder:
        from asr_kd.decode.files import decode_files

        bad = decode_files(config.files, decoder, _options(config), Words(config.graph))
    if bad:
        sys.exit(1)


def _specialists(config: Config) -> list[Path]:
    if config.specialists is None:
        return []
    from asr_kd.specialists.special import folders

    found = folders(config.specialists)
    if not found:
        raise UserError(f"{config.specialists} holds no specialist: train some (python -m asr_kd.specialists.train)")
    return found


@contextlib.contextmanager
def _decoder(config: Config, searches: Searches, jobs: int) -> Iterator[Decoder]:
    """The decoder that the flags describe, with so many of ``searches``, or a cluster's workers.

    Raises:
        UserError: a model, the graph or an interpreter with k2 is missing.
    """
    from asr_kd.decode.client import find_k2_python, prepared_graph
    from asr_kd.decode.cluster import ClusterDecoder, Recogniser

    python = None if config.in_process else find_k2_python(config.k2_python)
    recogniser = Recogniser(
        config.model, config.features, int(read_json(config.graph / "graph.json")["num_pdfs"]), config.mean,
        tuple(_specialists(config)), config.likeliest, prepared_graph(config.graph, python, config.cache), python,
        config.batch,
    )  # fmt: skip
    if config.scheduler:
        with config.executor() as executor:
            yield ClusterDecoder(recogniser, executor)
    else:
        yield recogniser.decoder(searches, jobs if python else 1)


def _options(config: Config) -> SearchOptions:
    """What the flags and a tuned.json say about one search."""
    scale, penalty = config.acoustic_scale, config.insertion_penalty
    if config.tuned is not None:
        scale, penalty = read_tuned(config.tuned)
    return SearchOptions(
        beam=config.beam, lattice_beam=config.lattice_beam, min_active=config.min_active,
        max_active=config.max_active, acoustic_scale=scale, insertion_penalty=penalty, lattice=config.lattices,
    )  # fmt: skip


if __name__ == "__main__":
    run(Config, main, separator="--and")
