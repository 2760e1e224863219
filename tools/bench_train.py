"""Speed of training, loading included, beside its matrix products alone and a straightforward loop.

    python tools/bench_train.py --out train.json

A corpus of noise is written to a temporary folder and streamed from there in pools, as a real one is; senones and
soft targets are random.  Every figure is a ratio against something measured in the same run.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch
import tyro
from lhotse import CutSet, Features, MonoCut, NumpyFilesWriter
from lhotse.array import TemporalArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from asr_kd.features.filterbanks import NUM_MELS, raw_features
from asr_kd.losses import CompactTargets
from asr_kd.models.dnn import PRESETS, AcousticModel, Shape
from asr_kd.models.precision import device_and_dtype
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.train.batches import FrameLoader
from asr_kd.train.step import Step

LEFT, RIGHT, LEARNING_RATE = 20, 5, 1e-3


@dataclasses.dataclass
class Config:
    """Benchmark training steps on hard and soft targets."""

    sizes: tuple[str, ...] = ("quarter:600", "medium:600", "paper:14000")
    """Preset and senones of each network."""
    frames: int = 100_000
    """Frames of the corpus."""
    seconds: float = 15.0
    """How long each loop runs at least, after a warm-up."""
    batch: int = 1024
    """Frames a batch."""
    kept: int = 16
    """Classes that each frame's soft target keeps."""
    threads: int = torch.get_num_threads()
    """Threads of the products."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu or cuda."""
    out: Path | None = None
    """Also write the figures as JSON."""


class RandomTargets:
    """Random soft targets, read as a store's are."""

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
    print(f"{bench.machine(config.device)}; batches of {config.batch}, soft and hard targets\n")
    print(bench.table(rows))
    bench.write(config.out, {"machine": bench.machine(config.device), "rows": rows})


def measure(config: Config, preset: str, senones: int, folder: Path) -> dict[str, Any]:
    _, dtype = device_and_dtype(config.device, "auto")
    cuts, targets = corpus(folder, config.frames, senones, config.kept)
    layers, width = PRESETS[preset]
    model = AcousticModel(Shape(layers, width, senones, LEFT, RIGHT)).to(config.device)
    step = Step(model, 1.0, 0.5, dtype, 0.01)
    # Half the corpus a pool, so that pools are read again and again as in a corpus that does not fit.
    pool = config.frames // 2
    loader = FrameLoader(cuts, raw_features, LEFT, RIGHT, config.batch, targets, pool, dtype, config.device)  # type: ignore[arg-type]
    speed = frames_a_second(config, loader.epoch, lambda batch: step(batch, LEARNING_RATE), lambda b: len(b.labels))
    begun = time.perf_counter()
    for _ in loader.epoch(0):
        pass
    loading = config.frames / (time.perf_counter() - begun)
    products = config.batch / bench.seconds(matrix_products(model, config.batch, dtype, config.device), config.device)
    naive_loader, naive_step = straightforward(config, cuts, targets, senones, layers, width)
    naive = frames_a_second(config, lambda _: iter(naive_loader), naive_step, lambda b: len(b[1]))
    return {
        "network": f"{layers}×{width}, {senones} senones",
        "dtype": str(dtype).removeprefix("torch."),
        "frames/s": round(speed),
        "products alone, frames/s": round(products),
        "share of the products' speed": speed / products,
        "loading alone, times as fast as training": loading / speed,
        "straightforward loop, frames/s": round(naive),
        "times as fast as that": speed / naive,
    }


def frames_a_second(
    config: Config, epoch: Callable[[int], Iterator[Any]], step: Callable[[Any], object], size: Callable[[Any], int]
) -> float:
    """Speed of a loop over epochs, after a few batches."""
    batches = itertools.chain.from_iterable(epoch(seed) for seed in itertools.count())
    for batch in itertools.islice(batches, 5):
        step(batch)
    bench.wait(config.device)
    begun, frames = time.perf_counter(), 0
    while time.perf_counter() - begun < config.seconds or frames < 10 * config.batch:
        batch = next(batches)
        step(batch)
        frames += size(batch)
        if config.device == "cuda" and frames % (100 * config.batch) == 0:
            torch.cuda.synchronize()
    bench.wait(config.device)
    return frames / (time.perf_counter() - begun)


def matrix_products(model: AcousticModel, batch: int, dtype: torch.dtype, device: str) -> Callable[[], None]:
    """The products of one step, and nothing else: forward, by the weights, by the inputs (not the first layer's)."""
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
    """One example a frame, with a dense target: how such a loop is written first."""

    def __init__(self, cuts: Path, targets: RandomTargets, senones: int) -> None:
        self.features, self.labels, self.soft, self.at = [], [], [], []
        for number, cut in enumerate(CutSet.from_file(cuts)):
            raw = torch.from_numpy(raw_features(cut))
            self.features.append(torch.cat([raw[:1].expand(LEFT, -1), raw, raw[-1:].expand(RIGHT, -1)]))
            self.labels.append(cut.load_custom("senones"))
            self.soft.append(targets.read(cut.id, len(raw)))
            self.at += [(number, t) for t in range(len(raw))]
        self.senones = senones

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, index: int) -> tuple[Tensor, int, Tensor]:
        cut, t = self.at[index]
        window = self.features[cut][t : t + LEFT + 1 + RIGHT].reshape(-1)
        dense = self.soft[cut].range(t, t + 1).batch(np.array([0])).dense(self.senones)[0]
        return window, int(self.labels[cut][t]), dense


def straightforward(
    config: Config, cuts: Path, targets: RandomTargets, senones: int, layers: int, width: int
) -> tuple[DataLoader[Any], Callable[[Any], None]]:
    """A loop as tutorials have it: Dataset, DataLoader, dropout modules, dense targets, the usual loss."""
    loader = DataLoader(Frames(cuts, targets, senones), config.batch, shuffle=True, num_workers=0)
    parts: list[nn.Module] = []
    inputs = (LEFT + 1 + RIGHT) * NUM_MELS
    for _ in range(layers):
        parts += [nn.Linear(inputs, width), nn.ReLU(), nn.Dropout(0.2)]
        inputs = width
    model = nn.Sequential(*parts, nn.Linear(inputs, senones)).to(config.device)
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


def corpus(folder: Path, frames: int, senones: int, kept: int) -> tuple[Path, RandomTargets]:
    """Cuts of 500 frames of noise with random senones and soft targets."""
    random = np.random.default_rng(0)
    generator = torch.Generator().manual_seed(0)
    cuts, rows = [], {}
    storage, labels = NumpyFilesWriter(folder / "features"), NumpyFilesWriter(folder / "senones")
    for number in range(frames // 500):
        name = f"cut-{number:06d}"
        key = storage.write(name, random.standard_normal((500, NUM_MELS), dtype=np.float32))
        features = Features(
            type="fbank", num_frames=500, num_features=NUM_MELS, frame_shift=0.01, sampling_rate=16000, start=0,
            duration=5.0, storage_type=storage.name, storage_path=str(storage.storage_path), storage_key=key,
        )  # fmt: skip
        senone: TemporalArray = labels.store_array(
            name, random.integers(0, senones, 500).astype(np.int32), frame_shift=0.01, temporal_dim=0, start=0
        )
        cuts.append(MonoCut(name, 0.0, 5.0, 0, features=features, custom={"senones": senone}))
        best = torch.rand(500, senones, generator=generator).topk(kept).indices
        dense = torch.zeros(500, senones).scatter_(1, best, 0.9 / kept).add_(0.1 / senones)
        rows[name] = TargetRows.pack(dense, kept, 0.0)
    path = folder / "cuts_train.jsonl.gz"
    CutSet.from_cuts(cuts).to_file(path)
    return path, RandomTargets(rows)


if __name__ == "__main__":
    main(tyro.cli(Config))
