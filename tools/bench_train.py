"""Speed of training with loading, compared with its matrix products alone and with a simple training loop.

    python tools/bench_train.py --out train.json

A corpus of noise is written to a temporary folder and streamed from there in pools, as a real one; its senones and soft
targets are random.  All speeds of a row are measured in the same run.
"""

from __future__ import annotations

import dataclasses
import functools
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

from asr_kd.features.extractors import raw_features
from asr_kd.losses import CompactTargets
from asr_kd.models.device import device_and_dtype, largest_layer
from asr_kd.models.dnn import PRESETS, dnn
from asr_kd.models.network import NETWORKS, Chunks, Network, context_of, is_window_classifier, segment_of, window_of
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.train.batches import Batch, FrameLoader
from asr_kd.train.chunks import CHUNK, UNBOUNDED, ChunkLoader
from asr_kd.train.pools import PoolReader
from asr_kd.train.sources import Manifests
from asr_kd.train.step import Step

LEFT, RIGHT, LEARNING_RATE, CUT_FRAMES, NUM_MELS = 20, 5, 1e-3, 500, 40


@dataclasses.dataclass
class Config:
    """Measure the speed of training on hard and soft targets."""

    sizes: tuple[str, ...] = ("quarter:600", "medium:600", "large:600", "paper:14000", "tdnnf:600")
    """Networks, PRESET:SENONES or NETWORK:SENONES each."""
    compile: bool = False
    """Train each network with torch.compile as well, which takes about a minute to compile."""
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

    def read(self, cut_id: str, frames: int | None = None, start: int = 0, stop: int | None = None) -> TargetRows:
        return self.rows[cut_id]

    def batch(
        self, rows: TargetRows | None, index: np.ndarray, inputs: Tensor, chunks: Chunks | None = None
    ) -> CompactTargets:
        assert rows is not None
        return rows.batch(index).to(inputs.device)


def main(config: Config) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(config.threads)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in config.sizes:
            name, senones = size.split(":")
            rows.append(measure(config, name, int(senones), Path(folder) / size.replace(":", "-")))
    bench.report(config, rows, f"batches of {config.batch} frames, soft and hard targets")


def measure(config: Config, name: str, senones: int, folder: Path) -> dict[str, Any]:
    cuts, targets = write_corpus(folder, config.frames, senones, config.top)
    if name in PRESETS:
        network = dnn(NUM_MELS, senones, name, left=LEFT, right=RIGHT)
    else:
        network = Network(NETWORKS[name], NUM_MELS, senones, {})
    _, dtype = device_and_dtype(config.device, "auto", largest_layer(network.build()))
    loader, step = training(config, network, cuts, targets, dtype)
    update = functools.partial(step, learning_rate=LEARNING_RATE)
    speed = loop_speed(config, loader.epoch, update, lambda b: len(b.labels))
    started = time.perf_counter()
    batch = next(loader.epoch(0))
    for _ in loader.epoch(0):
        pass
    loading = config.frames / (time.perf_counter() - started)
    products = len(batch.labels) / bench.seconds(matrix_products(step, batch, dtype), config.device)
    row = {
        "network": f"{name}, {senones} senones",
        "dtype": str(dtype).removeprefix("torch."),
        "frames/s": round(speed),
        "products alone, frames/s": round(products),
        "training / products": speed / products,
        "loading alone / training": loading / speed,
    }
    if config.compile:
        step.network = torch.compile(step.network)
        row["compiled / training"] = loop_speed(config, loader.epoch, update, lambda b: len(b.labels)) / speed
    row |= {"simple loop, frames/s": None, "speedup": None}
    if name in PRESETS:
        simple_loader, simple_step = simple_loop(config, cuts, targets, senones, *PRESETS[name])
        simple = loop_speed(config, lambda _: iter(simple_loader), simple_step, lambda b: len(b[1]))
        row |= {"simple loop, frames/s": round(simple), "speedup": speed / simple}
    return row


def training(
    config: Config, network: Network, cuts: Path, targets: RandomTargets, dtype: torch.dtype
) -> tuple[FrameLoader | ChunkLoader, Step]:
    """Batches and updates as the trainer makes them."""
    model = network.build().to(config.device).train()
    # A pool is half the corpus, so that pools are read again in every epoch, as for a corpus that does not fit.
    pools = functools.partial(PoolReader, Manifests([cuts]), raw_features, soft_targets=targets)  # type: ignore[arg-type]
    frames = config.frames // 2
    loader: FrameLoader | ChunkLoader
    if is_window_classifier(model):
        reader = pools(*window_of(model), pool_frames=frames, dtype=dtype)
        loader = FrameLoader(reader, config.batch, config.device)
    else:
        reader = pools(0, 0, pool_frames=frames, dtype=torch.float32)
        context, segment = context_of(model, UNBOUNDED), segment_of(model)
        loader = ChunkLoader(reader, context, segment, CHUNK, config.batch // CHUNK, config.device)
    return loader, Step(model, 1.0, 0.5, dtype, 0.01)


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


def matrix_products(step: Step, batch: Batch, dtype: torch.dtype) -> Callable[[], None]:
    """Runs only the matrix products of one update: outputs, gradients of weights, and of inputs but the first."""
    shapes: list[tuple[int, torch.Size]] = []
    layers = [layer for layer in step.model.modules() if isinstance(layer, nn.Linear)]
    hooks = [
        layer.register_forward_hook(lambda layer, args, _: shapes.append((args[0][..., 0].numel(), layer.weight.shape)))
        for layer in layers
    ]
    step(batch, 0.0)
    for hook in hooks:
        hook.remove()
    device = batch.inputs.device

    def values(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, device=device).to(dtype)

    products = [(values(n, w[1]), values(n, w[0]), values(*w)) for n, w in shapes]

    def run() -> None:
        for x, _, w in products:
            x @ w.T
        for number, (x, y, w) in enumerate(products):
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
            self.soft.append(targets.read(cut.id))
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
