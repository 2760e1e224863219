"""Rates measured on this machine: seconds of one core for everything that stages do per frame."""

import collections
import contextlib
import dataclasses
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
import torch

from asr_kd.common.parallel import Workers, cpu_count, run_all
from asr_kd.common.storage import read_json
from asr_kd.corpora.__main__ import main as make_corpus
from asr_kd.corpora.config import Config as CorporaConfig
from asr_kd.corpora.cuts import load_cuts
from asr_kd.decode.__main__ import main as decode
from asr_kd.decode.config import Config as DecodeConfig
from asr_kd.features.config import Config as FeaturesConfig
from asr_kd.features.extraction import extract_corpus
from asr_kd.features.normalise import Normaliser
from asr_kd.hmm.align import ForcedAligner
from asr_kd.hmm.config import Config as HmmConfig
from asr_kd.hmm.graph.__main__ import main as make_graph
from asr_kd.hmm.graph.config import Config as GraphConfig
from asr_kd.hmm.pipeline import is_perturbed, train_and_align
from asr_kd.hmm.scores import GmmScorer
from asr_kd.hmm.store import align_splits
from asr_kd.lang.__main__ import main as make_lang
from asr_kd.lang.config import Config as LangConfig
from asr_kd.losses import average_distributions
from asr_kd.models.device import device_and_dtype
from asr_kd.models.dnn import DNN
from asr_kd.models.network import Network, window_of
from asr_kd.models.posteriors import ensemble_logits, posteriors
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.soft_targets.shards import write_shard
from asr_kd.train.batches import Batch, window_reader
from asr_kd.train.pools import PoolReader
from asr_kd.train.sources import Manifests
from asr_kd.train.step import Step

#: Frames of a measured batch on the CPU; larger batches take hardly less time per frame.
MAX_BATCH = 1024
#: Frames of the measured utterances: several lengths, since memory and products are prepared for each.
UTTERANCES = (200, 350, 500, 650)
#: Minimum seconds of a measurement.
MIN_SECONDS = 1.0
#: Typical standard deviation of the logits of a trained network.
LOGIT_STD = 3.0
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
        alignment: alignment with triphones, written.
        gmm: all passes of GMM training, with the first alignment.
        loading: reading from the disk and normalisation, in one process.
        update: update of a teacher: windows, forward, loss, backward, optimiser.
        student: update of a student.
        forward: forward pass of a teacher.
        targets: averaging of distributions and storage of the soft target.
        scoring: posteriors of a teacher for decoding, in float32.
        search: search per second of speech, in a small graph with the default flags of asr_kd.decode.
        start: start of a process that computes and reads corpora; every stage waits for two.
    """

    features: float
    alignment: float
    gmm: float
    loading: float
    update: float
    student: float
    forward: float
    targets: float
    scoring: float
    search: float
    start: float


def measure(teacher: Network, student: Network, batch: int) -> Rates:
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
            *(functools.partial(_speech, root, root / f"core-{core}") for core in range(cores)),
            *cores * [functools.partial(_networks, teacher, student, batch)],
            *cores * [_start],
        ]
        for _, figures in run_all(executor, _measured, parts, "measuring", "part"):
            for rate, seconds in figures.items():
                found[rate].append(seconds)
    return Rates(**{rate: float(np.mean(seconds)) for rate, seconds in found.items()})


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


def operations(network: Network) -> float:
    """Floating-point operations of an update per frame: two per weight forward, four backward."""
    return 6.0 * network.num_parameters()


def _seconds(function: Callable[[], object], device: str = "cpu") -> float:
    """Median seconds of a call, over several calls after one to warm up."""
    function()
    times: list[float] = []
    while sum(times) < MIN_SECONDS or len(times) < 3:
        begun = time.perf_counter()
        function()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def _start() -> dict[str, float]:
    return {
        "start": _seconds(
            lambda: subprocess.run([sys.executable, "-c", "import asr_kd.features.extraction"], check=True)
        )
    }


def _networks(teacher: Network, student: Network, batch: int) -> dict[str, float]:
    return {
        "update": update_seconds(teacher, "cpu", batch, soft=False),
        "student": update_seconds(student, "cpu", batch, soft=True),
        **_targets(teacher),
    }


def update_seconds(network: Network, device: str, batch: int, soft: bool) -> float:
    """Seconds per frame: reading its window from a pool of noise, and its share of an update."""
    frames = min(batch, MAX_BATCH) if device == "cpu" else batch
    _, dtype = device_and_dtype(device, "auto")
    model = network.build().to(device).train()
    step = Step(model, 1.0, 0.5, dtype, 0.01)
    window = sum(window_of(model)) + 1
    pool = torch.randn(100_000 + window, network.feature_dim).to(device, dtype)
    windows = window_reader(pool, window)
    labels = torch.randint(network.num_senones, (frames,)).to(device)
    targets = torch.randn(frames, network.num_senones).softmax(-1).to(device) if soft else None
    draw = np.random.default_rng(0)

    def update() -> None:
        chosen = windows(draw.integers(100_000, size=frames))
        step(Batch(chosen, labels, targets), 1e-3)

    return _seconds(update, device) / frames


def _targets(network: Network) -> dict[str, float]:
    """Seconds per frame of a forward pass, of a soft target apart from its forward passes, and of posteriors."""
    _, dtype = device_and_dtype("cpu", "auto")
    models = [network.build().eval() for _ in range(2)]
    precise = [network.build().eval()]
    draw = np.random.default_rng(0)
    utterances = [draw.normal(size=(frames, network.feature_dim)) for frames in UTTERANCES]
    for model in models:  # imitate a trained network: the last layer is initialised with zeros
        dnn = cast(DNN, model)
        dnn.convert_weights(dtype)
        torch.nn.init.normal_(dnn.output.weight)
        dnn.output.weight.data *= LOGIT_STD / ensemble_logits([model], utterances[0])[0].std()
    generator = torch.Generator().manual_seed(0)

    def targets() -> Iterator[tuple[str, list[TargetRows]]]:
        for number, features in enumerate(utterances):
            average = average_distributions(
                ensemble_logits(models, features), mean="geometric"
            )  # the more expensive mean
            yield str(number), [TargetRows.threshold_sample(average, 0.02, generator)]

    frames = sum(UTTERANCES)
    forward = _seconds(lambda: [ensemble_logits(models, features) for features in utterances]) / frames / len(models)
    scoring = _seconds(lambda: [posteriors(precise, features) for features in utterances]) / frames
    with tempfile.TemporaryDirectory() as folder:
        kept = _seconds(lambda: write_shard(Path(folder, "shard"), (1.0,), targets(), {})) / frames
    return {"forward": forward, "targets": max(0.0, kept - len(models) * forward), "scoring": scoring}


def _corpus(root: Path) -> None:
    """Make a few minutes of the embedded corpus and its lexicon."""
    make_corpus(CorporaConfig(root / "data", train_minutes=MINUTES, dev_minutes=0.2, test_minutes=0.2))
    make_lang(LangConfig(data=root / "data", out=root / "lang"))


def _speech(corpus: Path, out: Path) -> dict[str, float]:
    """Rates of features, alignment, GMM training, loading and search on that corpus, in this process.

    GMMs are trained on the original speech; its copies at other speeds are only aligned.
    """

    class Here(HmmConfig):
        """Settings whose jobs run in this process, so that the start of processes does not count."""

        def executor(self, tasks: int | None = None, resources: str = "") -> Executor:
            return ThreadPoolExecutor(1)

    with ThreadPoolExecutor(1) as here:
        features, again = out / "features", out / "again"
        begun = time.perf_counter()
        figures = extract_corpus(FeaturesConfig(corpus / "data", features, speed_perturb=(0.9, 1.1)), here)
        frames = sum(split["frames"] for split in figures.values())
        extracting = (time.perf_counter() - begun) / frames
        lang = corpus / "lang"
        settings = Here(features=features, lang=lang, out=out / "gmm", leaves=LEAVES, min_leaf_frames=15)
        begun = time.perf_counter()
        pdfs = train_and_align(settings)["num_pdfs"]
        training = time.perf_counter() - begun
        aligner = ForcedAligner(settings.out, lang, functools.partial(GmmScorer, settings.out))
        begun = time.perf_counter()
        align_splits(here, aligner, features, again, pdfs)
        aligning = time.perf_counter() - begun
    spoken = sum(cut.num_frames for cut in load_cuts(features, "train") if not is_perturbed(cut))
    source = Manifests([again / "cuts_train.jsonl.gz"])
    pools = PoolReader(source, Normaliser.load(features), pool_frames=POOL_FRAMES, dtype=torch.bfloat16)
    loading = _seconds(lambda: sum(1 for _ in pools.pools(np.random.default_rng(0)))) / pools.frames
    return {
        "features": extracting, "alignment": aligning / frames, "gmm": (training - aligning) / spoken,
        "loading": loading, "search": _search(settings, out),
    }  # fmt: skip


def _search(settings: HmmConfig, out: Path) -> float:
    """Seconds of search per second of speech, with the GMM; ``GRAPH_FACTOR`` in costs.py scales it to larger graphs."""
    make_graph(GraphConfig(settings.lang, settings.out, out / "graph"))
    decode(DecodeConfig((settings.out,), out / "graph", settings.features, out=out / "decode", jobs=1))
    splits = read_json(out / "decode" / "decode.json")["splits"].values()
    return sum(split["search_seconds"] for split in splits) / sum(split["audio_seconds"] for split in splits)
