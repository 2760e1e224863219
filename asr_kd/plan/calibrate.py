"""Short measurements on the machine at hand: seconds of one core for each thing that stages do over and over."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from asr_kd.losses import average_distributions
from asr_kd.models import AcousticModel, Shape, device_and_dtype, ensemble_logits, parameters_of
from asr_kd.parallel import progress

#: Frames of a measured batch, seconds that a measurement takes at least.
FRAMES, LEAST = 1024, 1.0
#: Of speech that GMMs are trained on, and their senones: with ten Gaussians each, as in a larger corpus.
MINUTES, LEAVES = 5.0, 600
#: Frames held in memory while loading is measured: few, so that all are read from the disk.
POOL = 20_000


@dataclasses.dataclass(frozen=True)
class Rates:
    """Seconds of one core, unless it says otherwise.

    Attributes:
        features: a frame of filterbanks, written.
        alignment: a frame aligned with triphones, its senone written.
        gmm: a frame of GMM training, all passes together, its first alignment included.
        loading: a frame read from the disk and normalised, in one process.
        update: a training frame of the network asked for: windows, forward, loss, backward, optimiser.
        student: the same for the student.
        forward: a frame through one network asked for.
        targets: averaging and keeping a frame's soft target.
        start: a process that computes and reads corpora, until it can begin; every stage waits for two.
    """

    features: float
    alignment: float
    gmm: float
    loading: float
    update: float
    student: float
    forward: float
    targets: float
    start: float


def measure(teacher: Shape, student: Shape, teachers: int, device: str = "cpu") -> Rates:
    """Measure everything, in one to two minutes (GMMs on a small corpus most of it)."""
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "speech": _speech,
        "teachers": lambda: {
            "update": update_seconds(teacher, device, soft=False), "forward": _forward(teacher, device),
            "targets": _targets(teacher.num_pdfs, teachers),
        },
        "students": lambda: {"student": update_seconds(student, device, soft=True)},
        "processes": lambda: {"start": _start()},
    }  # fmt: skip
    found: dict[str, float] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with progress(parts.items(), "measuring", unit="part") as bar:
            for title, part in bar:
                bar.set_postfix_str(title)
                # One core: threads of NumPy's BLAS, which torch's setting does not reach, would take the others.
                with _silence(), threadpool_limits(1):
                    found |= part()
    finally:
        torch.set_num_threads(threads)
    return Rates(**found)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """What stages print, and libraries below Python, goes to a file that is shown if they fail."""
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


def operations(shape: Shape) -> float:
    """Floating-point operations of an update for one frame: two a weight forward, four backward."""
    return 6.0 * parameters_of(shape)


def _seconds(function: Callable[[], object], device: str = "cpu") -> float:
    """Of one call, the median of several, after one to warm up."""
    function()
    times: list[float] = []
    while sum(times) < LEAST or len(times) < 3:
        begun = time.perf_counter()
        function()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return float(np.median(times))


def _start() -> float:
    return _seconds(lambda: subprocess.run([sys.executable, "-c", "import lhotse, torch"], check=True))


def update_seconds(shape: Shape, device: str, soft: bool) -> float:
    """Of a frame: its window read from a pool of noise, and its share of an update."""
    from asr_kd.frames import Batch, read_windows
    from asr_kd.step import Step

    _, dtype = device_and_dtype(device, "auto")
    model = AcousticModel(shape).to(device).train()
    step = Step(model, 1.0, 0.5, dtype, 0.01)
    pool = torch.randn(100_000 + shape.window, shape.feature_dim).to(device, dtype)
    windows = read_windows(pool, shape.window)
    labels = torch.randint(shape.num_pdfs, (FRAMES,)).to(device)
    targets = torch.randn(FRAMES, shape.num_pdfs).softmax(-1).to(device) if soft else None
    draw = np.random.default_rng(0)

    def update() -> None:
        batch = windows(draw.integers(100_000, size=FRAMES))
        step(Batch(batch, labels, targets), 1e-3)

    return _seconds(update, device) / FRAMES


def _forward(shape: Shape, device: str) -> float:
    _, dtype = device_and_dtype(device, "auto")
    model = AcousticModel(shape).products_in(dtype).to(device).eval()
    features = np.random.default_rng(0).normal(size=(FRAMES, shape.feature_dim))
    return _seconds(lambda: ensemble_logits([model], features), device) / FRAMES


def _targets(num_pdfs: int, teachers: int) -> float:
    from asr_kd.soft_targets.rows import TargetRows

    logits = [3 * torch.randn(FRAMES, num_pdfs) for _ in range(teachers)]
    generator = torch.Generator().manual_seed(0)
    return _seconds(lambda: TargetRows.thin(average_distributions(logits), 0.02, generator)) / FRAMES


def _speech() -> dict[str, float]:
    """A frame's features, alignment, GMM training and loading, on minutes of the embedded corpus, in this process; GMMs
    are trained on the speech as it is, its copies at other speeds are aligned alone."""
    from asr_kd.corpora.__main__ import Config as CorporaConfig
    from asr_kd.corpora.__main__ import main as make_corpus
    from asr_kd.feature_extraction import extract_corpus
    from asr_kd.features import Config as FeaturesConfig
    from asr_kd.features import Normaliser
    from asr_kd.frames import FrameLoader
    from asr_kd.hmm.__main__ import Config as HmmConfig
    from asr_kd.hmm.align import ScoredAlignment
    from asr_kd.hmm.pipeline import is_perturbed, train_and_align
    from asr_kd.hmm.scores import GmmScorer
    from asr_kd.hmm.store import align_roles, load_cuts
    from asr_kd.lang.__main__ import Config as LangConfig
    from asr_kd.lang.__main__ import main as make_lang

    class Here(HmmConfig):
        """Jobs in this process: what it takes to start others does not count."""

        def executor(self, tasks: int | None = None, resources: str = "") -> Executor:
            return ThreadPoolExecutor(1)

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        make_corpus(CorporaConfig(root / "data", train_minutes=MINUTES, dev_minutes=0.2, test_minutes=0.2))
        make_lang(LangConfig(data=root / "data", out=root / "lang"))
        with ThreadPoolExecutor(1) as here:
            features = root / "features"
            begun = time.perf_counter()
            figures = extract_corpus(FeaturesConfig(root / "data", features, speed_perturb=(0.9, 1.1)), here)
            frames = sum(role["frames"] for role in figures.values())
            extracting = (time.perf_counter() - begun) / frames
            settings = Here(features=features, lang=root / "lang", out=root / "gmm", leaves=LEAVES, min_leaf_frames=15)
            begun = time.perf_counter()
            pdfs = train_and_align(settings)["num_pdfs"]
            training = time.perf_counter() - begun
            source = ScoredAlignment(root / "gmm", root / "lang", GmmScorer(root / "gmm"))
            begun = time.perf_counter()
            align_roles(here, source, features, root / "again", pdfs)
            aligning = time.perf_counter() - begun
        spoken = sum(cut.num_frames for cut in load_cuts(features, "train") if not is_perturbed(cut))
        loader = FrameLoader(
            root / "again" / "cuts_train.jsonl.gz", Normaliser.load(features), pool_frames=POOL, batch_size=FRAMES,
            dtype=torch.bfloat16,
        )  # fmt: skip
        loading = _seconds(lambda: sum(1 for _ in loader.pools(np.random.default_rng(0)))) / loader.frames
        return {
            "features": extracting, "alignment": aligning / frames, "gmm": (training - aligning) / spoken,
            "loading": loading,
        }  # fmt: skip
