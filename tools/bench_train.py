"""Speed of training with loading, compared with its matrix products alone and with a simple training loop.

    python tools/bench_train.py --out train.json

A corpus of noise is written to a temporary folder and streamed from there in pools, as a real one; its senones and soft
targets are random.  All speeds of a row are measured in the same run.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import bench
import numpy as np
import torch
import tyro
from lhotse import CutSet, Features, MonoCut, NumpyFilesWriter
from lhotse.array import TemporalArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from asr_kd.features.extractors import raw_features
from asr_kd.losses import CompactTargets
from asr_kd.models.device import device_and_dtype
from asr_kd.models.dnn import DNN, PRESETS, dnn
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.train.batches import FrameLoader
from asr_kd.train.pools import PoolReader
from asr_kd.train.sources import Manifests
from asr_kd.train.step import Step

LEFT, RIGHT, LEARNING_RATE, CUT_FRAMES, NUM_MELS = 20, 5, 1e-3, 500, 40


@dataclasses.dataclass
class Config:
    """Measure the speed of training on hard and soft targets."""

    sizes: tuple[str, ...] = ("quarter:600", "medium:600", "paper:14000")
    """Networks, PRESET:SENONES each."""
    frames: int = 100_000
    """Number of frames of the corpus."""
    seconds: float = 15.0
    """Minimum duration of each loop, after a warm-up."""
    batch: int = 1024
    """Batch size in frames."""
    top: int = 16
    """Number of classes per frame in the soft targets."""
    threads: int = torch.get_num_threads()
    """Number of threads of the matrix products."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu or cuda."""
    out: Path | None = None
    """JSON file for the results."""


class RandomTargets:
    """Random soft targets with the interface of a store."""

    def __init__(self, rows: dict[str, TargetRows]) -> None:
        self.rows = rows

    def read(self, cut_id: str, frames: int) -> TargetRows:
        return self.rows[cut_id]

    def batch(self, rows: TargetRows, index: np.ndarray, windows: Tensor) -> CompactTargets:
        return rows.batch(index).to(windows.device)


def main(config: Config) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(config.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in config.sizes:
            preset, senones = size.split(":")
            rows.append(measure(config, preset, int(senones), Path(folder) / size.replace(":", "-")))
    bench.report(config, rows, f"batches of {config.batch} frames, soft and hard targets")


def measure(config: Config, preset: str, senones: int, folder: Path) -> dict[str, Any]:
    _, dtype = device_and_dtype(config.device, "auto")
    cuts, targets = write_corpus(folder, config.frames, senones, config.top)
    layers, width = PRESETS[preset]
    network = dnn(NUM_MELS, senones, preset, left=LEFT, right=RIGHT)
    model = network.build().to(config.device)
    step = Step(model, 1.0, 0.5, dtype, 0.01)
    # A pool is half the corpus, so that pools are read again in every epoch, as for a corpus that does not fit.
    pool = config.frames // 2
    pools = PoolReader(Manifests([cuts]), raw_features, LEFT, RIGHT, targets, pool, dtype)  # type: ignore[arg-type]
    loader = FrameLoader(pools, config.batch, config.device)
    speed = loop_speed(config, loader.epoch, lambda batch: step(batch, LEARNING_RATE), lambda b: len(b.labels))
    started = time.perf_counter()
    for _ in loader.epoch(0):
        pass
    loading = config.frames / (time.perf_counter() - started)
    products = config.batch / bench.seconds(
        matrix_products(cast(DNN, model), config.batch, dtype, config.device), config.device
    )
    simple_loader, simple_step = simple_loop(config, cuts, targets, senones, layers, width)
    simple = loop_speed(config, lambda _: iter(simple_loader), simple_step, lambda b: len(b[1]))
    return {
        "network": f"{layers}×{width}, {senones} senones",
        "dtype": str(dtype).removeprefix("torch."),
        "frames/s": round(speed),
        "products alone, frames/s": round(products),
        "training / products": speed / products,
        "loading alone / training": loading / speed,
        "simple loop, frames/s": round(simple),
        "speedup": speed / simple,
    }


def loop_speed(
    config: Config, epoch: Callable[[int], Iterator[Any]], step: Callable[[Any], object], size: Callable[[Any], int]
) -> float:
    """Frames per second of a loop over epochs, after a few batches."""
    batches = itertools.chain.from_iterable(epoch(seed) for seed in itertools.count())
    for batch in itertools.islice(batches, 5):
        step(batch)
    bench.synchronise(config.device)
    started, frames = time.perf_counter(), 0
    while time.perf_counter() - started < config.seconds or frames < 10 * config.batch:
        batch = next(batches)
        step(batch)
        frames += size(batch)
        if frames % (100 * config.batch) == 0:
            bench.synchronise(config.device)
    bench.synchronise(config.device)
    return frames / (time.perf_counter() - started)


def matrix_products(model: DNN, batch: int, dtype: torch.dtype, device: str) -> Callable[[], None]:
    """Runs only the matrix products of one step: outputs, gradients of the weights, and gradients of the inputs (except
    those of the first layer)."""
    layers = [*model.hidden, model.output]
    weights = [layer.weight.detach().to(dtype) for layer in layers]
    inputs = [torch.randn(batch, w.shape[1], device=device).to(dtype) for w in weights]
    outputs = [torch.randn(batch, w.shape[0], device=device).to(dtype) for w in weights]

    def run() -> None:
        for x, w in zip(inputs, weights, strict=True):
            x @ w.T
        for number, (x, y, w) in enumerate(zip(inputs, outputs, weights, strict=True)):
            y.T @ x
            if number:
                y @ w

    return run


class Frames(Dataset[tuple[Tensor, int, Tensor]]):
    """One example per frame, with a dense soft target."""

    def __init__(self, cuts: Path, targets: RandomTargets, senones: int) -> None:
        self.features, self.labels, self.soft, self.frames = [], [], [], []
        for number, cut in enumerate(CutSet.from_file(cuts)):
            raw = torch.from_numpy(raw_features(cut))
            self.features.append(torch.cat([raw[:1].expand(LEFT, -1), raw, raw[-1:].expand(RIGHT, -1)]))
            self.labels.append(cut.load_custom("senones"))
            self.soft.append(targets.read(cut.id, len(raw)))
            self.frames += [(number, t) for t in range(len(raw))]
        self.senones = senones

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        cut, t = self.frames[index]
        window = self.features[cut][t : t + LEFT + 1 + RIGHT].reshape(-1)
        dense = self.soft[cut].range(t, t + 1).batch(np.array([0])).dense(self.senones)[0]
        return window, int(self.labels[cut][t]), dense


def simple_loop(
    config: Config, cuts: Path, targets: RandomTargets, senones: int, layers: int, width: int
) -> tuple[DataLoader[Any], Callable[[Any], None]]:
    """The loop of tutorials: Dataset, DataLoader, dropout modules, dense targets, the standard loss."""
    loader = DataLoader(Frames(cuts, targets, senones), config.batch, shuffle=True, num_workers=0)
    modules: list[nn.Module] = []
    inputs = (LEFT + 1 + RIGHT) * NUM_MELS
    for _ in range(layers):
        modules += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(0.2)]
        inputs = width
    model = nn.Sequential(*modules, nn.Linear(inputs, senones)).to(config.device)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE)

    def step(batch: Any) -> None:
        windows, labels, soft = (t.to(config.device) for t in batch)
        logits = model(windows)
        loss = 0.5 * F.kl_div(F.log_softmax(logits, 1), soft, reduction="batchmean") + 0.5 * F.cross_entropy(
            logits, labels
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return loader, step


def write_corpus(folder: Path, frames: int, senones: int, top: int) -> tuple[Path, RandomTargets]:
    """A manifest of cuts of noise with random senones, and their random soft targets."""
    rng = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    cuts, rows, duration = [], {}, CUT_FRAMES / 100
    storage, labels = NumpyFilesWriter(folder / "features"), NumpyFilesWriter(folder / "senones")
    for number in range(frames // CUT_FRAMES):
        name = f"cut-{number:06d}"
        key = storage.write(name, rng.standard_normal((CUT_FRAMES, NUM_MELS), dtype=np.float32))
        features = Features(
            type="kaldi-fbank", num_frames=CUT_FRAMES, num_features=NUM_MELS, frame_shift=0.01, sampling_rate=16000,
            start=0, duration=duration, storage_type=storage.name, storage_path=str(storage.storage_path),
            storage_key=key,
        )  # fmt: skip
        senone: TemporalArray = labels.store_array(
            name, rng.integers(0, senones, CUT_FRAMES).astype(np.int32), frame_shift=0.01, temporal_dim=0, start=0
        )
        cuts.append(MonoCut(name, 0.0, duration, 0, features=features, custom={"senones": senone}))
        classes = torch.rand(CUT_FRAMES, senones, generator=generator).topk(top).indices
        dense = torch.zeros(CUT_FRAMES, senones).scatter_(1, classes, 0.9 / top).add_(0.1 / senones)
        rows[name] = TargetRows.pack(dense, top, 0.0)
    path = folder / "cuts_train.jsonl.gz"
    CutSet.from_cuts(cuts).to_file(path)
    return path, RandomTargets(rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
