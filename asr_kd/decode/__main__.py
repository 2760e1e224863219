"""python -m asr_kd.decode: words of prepared roles, or of audio files named on the command line."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from asr_kd.cli import run
from asr_kd.decode.client import Searches
from asr_kd.decode.output import read_tuned
from asr_kd.decode.worker import SearchOptions
from asr_kd.parallel import Workers, cpu_count
from asr_kd.storage import Stage, UserError, read_json

if TYPE_CHECKING:
    from asr_kd.decode.pipeline import Decoder


@dataclasses.dataclass
class Config(Workers):
    """Search the graph with k2 and write the words (--out), or print those of audio FILES.

    Prepared roles:  --model DIR [DIR ...] --graph DIR --features DIR --roles dev test --out DIR
    Audio files:     --model DIR [DIR ...] --graph DIR --features DIR [--tuned FILE] FILE [FILE ...]

    After --and, the flags of another decoding may follow: one after the other, with the same search processes.
    --jobs and --scheduler are those of the first.
    """

    model: tuple[Path, ...]
    """A network's folder, several for an ensemble (their posteriors are averaged), or the GMM's folder."""
    graph: Path
    """Folder of the graph (HCLG.fst, words.txt, graph.json)."""
    features: Path
    """Folder of the features, with their normalisation."""
    files: Positional[tuple[Path, ...]] = ()
    """Audio files of any rate, mono or stereo: prints path<TAB>words for each, and nothing else, to stdout."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How an ensemble's posteriors are averaged."""
    specialists: Path | None = None
    """Folder that asr_kd.specialists.train filled: specialists that have a say beside the one network of --model."""
    likeliest: int = 1
    """So many of that network's likeliest senones choose which specialists have a say."""
    cuts: Path | None = None
    """Folder with cuts_ROLE.jsonl.gz; default: --features, which has every utterance, aligned or not."""
    roles: tuple[str, ...] = ("dev", "test")
    """Roles to decode."""
    out: Path | None = None
    """Folder for hyp_ROLE.tsv, failed_ROLE.tsv, tuned.json, sweep_ROLE.json, decode.json."""
    tune_on: str = ""
    """Role on which acoustic scale and word insertion penalty are chosen first (fewest word errors)."""
    tuned: Path | None = None
    """tuned.json of another run: its values instead of --acoustic-scale and --insertion-penalty."""
    acoustic_scale: float = 0.07
    """Factor of the acoustic log-likelihoods; with --tune-on, that of the lattices it starts from."""
    insertion_penalty: float = 0.0
    """Taken off a path's score (natural logarithm) for each word."""
    scales: tuple[float, ...] = (0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.12, 0.15, 0.2)
    """Acoustic scales that --tune-on tries."""
    penalties: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    """Word insertion penalties that --tune-on tries."""
    beam: float = 13.0
    """Paths worse than the best of their frame by more (scaled natural logarithm) are dropped."""
    max_active: int = 2500
    """States kept a frame, at most; must exceed --min-active."""
    min_active: int = 30
    """States kept a frame, at least, whatever the beam."""
    lattice_beam: float = 4.0
    """Lattice arcs on no path within this of the best one are dropped (tuning and --lattices)."""
    lattices: bool = False
    """Also write lattices_ROLE.gz, Kaldi's text archive: from, to, pdf + 1, word, graph cost,acoustic cost."""
    batch: int = 4
    """Utterances searched together, at most; on a CPU more save no time, but cost memory."""
    k2_python: Path | None = None
    """Interpreter with k2; default: $ASR_KD_K2_PYTHON, else .venv-k2 beside the package, else this one."""
    in_process: bool = False
    """Search in this process (k2 must be importable here): no worker that may die alone."""
    cache: Path | None = None
    """Where graphs converted for k2 are kept; default: the folder GRAPH.k2 beside --graph."""

    def __post_init__(self) -> None:
        if self.max_active <= self.min_active:
            raise UserError(f"--max-active {self.max_active} must exceed --min-active {self.min_active}")
        if min((self.acoustic_scale, self.beam, self.lattice_beam, *self.scales)) <= 0:
            raise UserError("--acoustic-scale, --scales, --beam and --lattice-beam must be positive")
        if self.likeliest < 1:
            raise UserError("--likeliest must be positive: correct the flag")
        if not self.scales or not self.penalties or self.batch < 1:
            raise UserError("--scales and --penalties need at least one value each, --batch at least 1")
        if self.tune_on == "test":
            raise UserError("tuning on test makes its error rate worthless: name a role kept for tuning by --tune-on")
        if self.tune_on and self.tuned:
            raise UserError("--tune-on finds values and --tuned gives them: leave one of them out")


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
            _roles(dataclasses.replace(config, jobs=first.jobs, scheduler=first.scheduler), kept)


def _roles(config: Config, searches: Searches) -> None:
    if config.out is None:
        raise UserError("--out DIR is missing (or name audio files to print their words)")
    optional = [path for path in (config.cuts, config.tuned) if path is not None] + _specialists(config)
    stage = Stage("decode", config.out, config, [*config.model, config.graph, config.features, *optional])
    if not stage.begin():
        return
    from asr_kd.decode.output import Words

    with _decoder(config, searches, config.jobs or cpu_count()) as decoder:
        from asr_kd.decode.roles import decode_roles

        stage.finish(**decode_roles(config, decoder, _options(config), Words(config.graph), config.out))
    shutil.rmtree(config.out / "shards")


def _files(config: Config, searches: Searches) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    from asr_kd.decode.output import Words

    with _decoder(config, searches, 1) as decoder:
        from asr_kd.decode.audio import decode_files

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
