"""Rates measured on this machine: seconds of one core for everything that stages do per frame."""

import collections
import contextlib
import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from asr_kd.common.parallel import Workers, cpu_count, run_all
from asr_kd.common.storage import read_json
from asr_kd.corpora.__main__ import main as make_corpus
from asr_kd.corpora.config import Config as CorporaConfig
from asr_kd.corpora.cuts import load_cuts
from asr_kd.decode.__main__ import main as decode
from asr_kd.decode.config import Config as DecodeConfig
from asr_kd.decode.config import Search
from asr_kd.features.config import Config as FeaturesConfig
from asr_kd.features.extraction import extract_corpus
from asr_kd.features.normalise import Normaliser
from asr_kd.hmm.config import Config as HmmConfig
from asr_kd.hmm.graph.__main__ import main as make_graph
from asr_kd.hmm.graph.config import Config as GraphConfig
from asr_kd.hmm.pipeline import align, is_perturbed, train_and_align
from asr_kd.lang.__main__ import main as make_lang
from asr_kd.lang.config import Config as LangConfig
from asr_kd.models.device import device_and_dtype
from asr_kd.models.network import Network
from asr_kd.plan.clock import computed, seconds
from asr_kd.plan.networks import LOGIT_STD, network_rates
from asr_kd.soft_targets.store import SoftTargets
from asr_kd.soft_targets.writer import Writer
from asr_kd.train.pools import PoolReader
from asr_kd.train.sources import Manifests

#: Minutes of speech that GMMs are trained on, and number of senones, with ten Gaussians each as in a larger corpus.
MINUTES, LEAVES = 5.0, 600
#: Cores that are measured at the same time; each takes two GB of memory.
MAX_CORES = 16
#: Frames held in memory while loading is measured: few, so that all are read from the disk.
POOL_FRAMES = 20_000


@dataclasses.dataclass(frozen=True)
class Rates:
    """Seconds of one core, per frame unless stated otherwise.

    Attributes:
        features: filterbanks, written.
        copies: those of a copy at another speed.
        alignment: transforms of the speakers and alignment with triphones, written.
        gmm: all passes of GMM training.
        loading: reading and normalisation.
        target_loading: the same with soft targets.
        update: update of a teacher: windows, forward, loss, backward, optimiser.
        student: update of a student.
        forward: forward pass of a teacher.
        targets: averaging of distributions and storage of the soft target.
        scoring: posteriors of a teacher for decoding, in float32.
        search: search per second of speech, in a small graph with the default flags of asr_kd.decode.
        start: start of a process that computes and reads corpora; every stage waits for two.
        process: bytes of memory of such a process.
        feature: bytes of a feature in the number type that networks are trained in on a core.
    """

    features: float
    copies: float
    alignment: float
    gmm: float
    loading: float
    target_loading: float
    update: float
    student: float
    forward: float
    targets: float
    scoring: float
    search: float
    start: float
    process: float
    feature: float


def measure(teacher: Network, student: Network, batch: int, search: Search = "k2") -> Rates:
    """Measure all rates in one to two minutes, most of it for GMMs on a small corpus.

    All cores are measured at the same time, as stages use them: a core is slower while the others compute.
    """
    cores = min(cpu_count(), MAX_CORES)
    found: dict[str, list[float]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as name, Workers(jobs=cores).executor() as executor:
        root = Path(name)
        with _silence():
            _corpus(root)
        parts: list[Callable[[], dict[str, float]]] = [
            *(functools.partial(_speech, root, root / f"core-{core}", search) for core in range(cores)),
            *cores * [functools.partial(network_rates, teacher, student, batch)],
            *cores * [_start],
        ]
        for _, figures in run_all(executor, _measured, parts, "measuring", "part"):
            for rate, value in figures.items():
                found[rate].append(value)
    return Rates(**{rate: float(np.mean(values)) for rate, values in found.items()})


def _measured(part: Callable[[], dict[str, float]]) -> dict[str, float]:
    """Run a measurement in a worker process."""
    with _silence():
        return part()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Redirect the output of stages and of libraries to a file, which is shown if they fail."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile() as file:
        try:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
            yield
        except BaseException:
            file.seek(0)
            os.write(kept[1], file.read())
            raise
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, original in enumerate(kept, 1):
                os.dup2(original, number)
                os.close(original)


def _start() -> dict[str, float]:
    command = [sys.executable, "-c", "import asr_kd.features.extraction; print(open('/proc/self/status').read())"]
    status = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return {"start": seconds(lambda: subprocess.run(command, check=True)), "process": 1024.0 * int(peak)}


def _corpus(root: Path) -> None:
    """Make a few minutes of the embedded corpus and its lexicon."""
    make_corpus(CorporaConfig(root / "data", train_minutes=MINUTES, dev_minutes=0.2, test_minutes=0.2))
    make_lang(LangConfig(data=root / "data", out=root / "lang"))


def _speech(corpus: Path, out: Path, search: Search) -> dict[str, float]:
    """Rates of features, alignment, GMM training, loading and search on that corpus, in this process.

    GMMs are trained on the original speech; its copies at other speeds are only aligned.
    """

    class Here(HmmConfig):
        """Settings whose jobs run in this process, so that the start of processes does not count."""

        def executor(self, tasks: int | None = None, resources: str = "") -> Executor:
            return ThreadPoolExecutor(1)

    with ThreadPoolExecutor(1) as here:
        plain, plain_frames = _extract(corpus, out / "plain", (), here)
        features = out / "features"
        extracting, frames = _extract(corpus, features, (0.9, 1.1), here)
        settings = Here(
            features=features, lang=corpus / "lang", out=out / "gmm", leaves=LEAVES, min_leaf_frames=15
        )  # fmt: skip
        begun = computed()
        train_and_align(settings)
        trained = computed()
        align(here, settings, settings.out, read_json(settings.out / "hmm.json"))
        aligning = computed() - trained
        training = trained - begun - aligning
    spoken = sum(cut.num_frames for cut in load_cuts(features, "train") if not is_perturbed(cut))
    return {
        "features": plain / plain_frames, "copies": (extracting - plain) / (frames - plain_frames),
        "alignment": aligning / frames, "gmm": training / spoken, "loading": _loading(settings, None),
        "target_loading": _loading(settings, _store(settings, out / "store")), "search": _search(settings, out, search),
    }  # fmt: skip


def _extract(corpus: Path, out: Path, speeds: Sequence[float], here: Executor) -> tuple[float, int]:
    """The seconds of features of the corpus, and the number of their frames."""
    begun = computed()
    figures = extract_corpus(FeaturesConfig(corpus / "data", out, speed_perturb=tuple(speeds)), here)
    return computed() - begun, sum(split["frames"] for split in figures.values())


def _loading(settings: HmmConfig, soft_targets: SoftTargets | None) -> float:
    source = Manifests([settings.out / "cuts_train.jsonl.gz"])
    normaliser = Normaliser.load(settings.features)
    _, dtype = device_and_dtype("cpu", "auto")
    pools = PoolReader(source, normaliser, soft_targets=soft_targets, pool_frames=POOL_FRAMES, dtype=dtype)
    return seconds(lambda: sum(1 for _ in pools.pools(np.random.default_rng(0)))) / pools.frames


def _store(settings: HmmConfig, out: Path) -> SoftTargets:
    """Soft targets of the training cuts, of noise like the logits of a network."""
    writer = Writer(out, LEAVES)
    for cut in load_cuts(settings.out, "train"):
        writer.write(cut.id, LOGIT_STD * torch.randn(cut.num_frames, LEAVES))
    writer.finish()
    return SoftTargets(out)


def _search(settings: HmmConfig, out: Path, search: Search) -> float:
    """Seconds of search per second of speech, with the GMM; ``GRAPH_FACTOR`` in costs.py scales it to larger graphs."""
    make_graph(GraphConfig(settings.lang, settings.out, out / "graph"))
    decode(DecodeConfig((settings.out,), out / "graph", settings.features, out=out / "decode", jobs=1, search=search))
    splits = read_json(out / "decode" / "decode.json")["splits"].values()
    return sum(split["search_seconds"] for split in splits) / sum(split["audio_seconds"] for split in splits)
