"""python -m asr_kd.decode: decode prepared splits, or audio files named on the command line."""

import contextlib
import dataclasses
import logging
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asr_kd.common.cli import log_to, run
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import cpu_count
from asr_kd.common.storage import Stage
from asr_kd.decode.client import SearchPool
from asr_kd.decode.config import Config
from asr_kd.decode.experiment import expand, names_bundle
from asr_kd.decode.recogniser import find_specialists, make_recogniser
from asr_kd.features.front_end import FrontEnd

#: Highest exit status that counts failed files; shells use those above 125.
MAX_STATUS = 100


def main(*configs: Config, searches: SearchPool | None = None) -> None:
    """Run all ``configs``, one after the other.

    Args:
        searches: a pool that earlier calls have used; the caller closes it.
    """
    first = configs[0]
    if len(configs) > 1 and any(config.files for config in configs):
        raise UserError("audio files are decoded by one command at a time: leave out --and")
    with contextlib.ExitStack() as stack:
        pool = searches or stack.enter_context(contextlib.closing(SearchPool()))
        if first.files:
            return _decode_files(first, pool)
        for config in configs:
            _decode_splits(dataclasses.replace(config, jobs=first.jobs, scheduler=first.scheduler), pool)


def _decode_splits(config: Config, pool: SearchPool) -> None:
    if config.out is None:
        raise UserError("--out DIR is missing (or name audio files to print their words)")
    optional = [path for path in (config.cuts, config.tuned, config.rescore, config.words) if path is not None]
    inputs = [*config.model, config.graph, config.features, *optional, *find_specialists(config)]
    stage = Stage("decode", config.out, config, inputs)
    if not stage.begin():
        return
    with new_words(config) as extended:
        figures = _decode(extended, config.out, pool)
    shutil.rmtree(config.out / "shards", ignore_errors=True)  # while the folder is still this process's
    stage.finish(**figures)


def _decode(config: Config, out: Path, pool: SearchPool) -> dict[str, Any]:
    recogniser = make_recogniser(config)
    if not config.scheduler:  # processes load k2 and the graph during the imports below
        jobs = 1 if config.in_process else config.jobs or cpu_count()
        local = pool(jobs, recogniser.graph, recogniser.by, recogniser.num_pdfs)
    from asr_kd.decode.cluster import ClusterDecoder
    from asr_kd.decode.pipeline import build_decoder
    from asr_kd.decode.splits import decode_splits

    if config.scheduler:
        with config.executor() as executor:
            return decode_splits(config, ClusterDecoder(recogniser, executor), out)
    return decode_splits(config, build_decoder(recogniser, local), out)


def _decode_files(config: Config, pool: SearchPool) -> None:
    log_to(sys.stderr, "%(message)s", instead=True)
    if config.scheduler:
        logging.warning("--scheduler is for splits: audio files are decoded by this process")
    subtitles = config.format in ("srt", "vtt")
    if (config.out and not subtitles) or config.tune_on or config.lattices:
        raise UserError(
            "--out (but for subtitles), --tune-on and --lattices are for splits: leave them out with audio files"
        )
    if config.times and config.format == "text":
        raise UserError("--format text has no times: choose jsonl, ctm, srt or vtt, or leave out --times")
    if subtitles:
        _check_names(config)
    if FrontEnd.load(config.features).settings is None:
        raise UserError(
            f"{config.features} has features that were made elsewhere, so those of audio files cannot be computed: "
            "decode splits (--splits, --out), or make features with asr_kd.features"
        )
    with new_words(config) as extended:
        failed = _recognise(extended, pool)
    sys.exit(min(failed, MAX_STATUS))


def _recognise(config: Config, pool: SearchPool) -> int:
    recogniser = make_recogniser(config)
    searches = pool(1, recogniser.graph, recogniser.by, recogniser.num_pdfs)
    from asr_kd.decode.files import decode_files
    from asr_kd.decode.pipeline import build_decoder

    return decode_files(config, build_decoder(recogniser, searches))


@contextlib.contextmanager
def new_words(config: Config) -> Iterator[Config]:
    """``config`` with a graph that has the words of --words, as long as the block lasts."""
    if config.words is None:
        yield config
        return
    from asr_kd.hmm.new_words import extend_graph

    with tempfile.TemporaryDirectory(dir=config.out, prefix=".words-") as folder:
        extend_graph(config.graph, config.words, Path(folder, "graph"))
        yield dataclasses.replace(config, graph=Path(folder, "graph"), cache=Path(folder, "k2"))


def _check_names(config: Config) -> None:
    """Refuse subtitles of several files in one stream or in one file."""
    if config.out is None and len(config.files) > 1:
        raise UserError(
            f"{len(config.files)} files cannot share subtitles: give --out DIR for DIR/NAME.{config.format}"
        )
    names = Counter(path.stem for path in config.files)
    if double := next((name for name, count in names.items() if count > 1), None):
        raise UserError(f"two files are named {double}, and so would be their subtitles: decode them one by one")


if __name__ == "__main__":
    if names_bundle(sys.argv[1:]):
        from asr_kd.runtime.__main__ import main as recognise

        sys.exit(recognise(sys.argv[1:]))
    run(Config, main, separator="--and", expand=expand)
