"""Size and speed of the store of soft targets, beside dense float16 and what training consumes.

    python tools/bench_targets.py --out targets.json
    python tools/bench_targets.py --store recipes/librispeech/exp/embedded/soft_targets \
        --features recipes/librispeech/exp/embedded/features

Posteriors are random, as peaked as asked for (--entropy), or those of a recipe's store.
"""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch
import tyro
from torch import Tensor

from asr_kd.common.storage import Stage
from asr_kd.features.filterbanks import NUM_MELS
from asr_kd.losses import CompactTargets
from asr_kd.models.dnn import PRESETS, AcousticModel, Shape
from asr_kd.models.precision import device_and_dtype
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.soft_targets.store import SoftTargets, write_shard, write_store
from asr_kd.train.batches import Batch
from asr_kd.train.step import Step

BATCH, CUT = 1024, 500  # frames


@dataclasses.dataclass
class Config:
    """Benchmark the store."""

    sizes: tuple[str, ...] = ("medium:600", "paper:14000")
    """Preset and senones of the networks whose training reads it."""
    frames: int = 20_000
    """Frames written and read."""
    entropy: float = 1.7
    """Mean entropy of the random posteriors, nats; ensembles of the recipes have 1.5 to 1.9 at T = 1."""
    floor: float = 0.02
    """Least probability that is kept for certain."""
    store: Path | None = None
    """A recipe's store: its size and the speed of reading it instead."""
    features: Path | None = None
    """Features folder of that store."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where the training runs that reading is compared with."""
    out: Path | None = None
    """Also write the figures as JSON."""


def main(config: Config) -> None:
    torch.manual_seed(0)
    if config.store is not None and config.features is not None:
        rows = [{"store": str(config.store), **reading(config, config.store, config.features, "medium")}]
    else:
        rows = [measure(config, *size.split(":")) for size in config.sizes]
    print(f"{bench.machine(config.device)}\n")
    print(bench.table(rows))
    bench.write(config.out, {"machine": bench.machine(config.device), "rows": rows})


def measure(config: Config, preset: str, senones: str) -> dict[str, Any]:
    """Write random posteriors, then read them."""
    classes = int(senones)
    cuts = [f"cut-{number:06d}" for number in range(config.frames // CUT)]
    logits = torch.randn(CUT, classes)
    posteriors = (sharpness(logits, config.entropy) * logits).softmax(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"

        def write() -> None:
            generator = torch.Generator().manual_seed(0)
            rows = ((cut, [TargetRows.thin(posteriors, config.floor, generator)]) for cut in cuts)
            write_shard(folder / "shard-00000", (1.0,), rows, {})

        features = Stage("features", Path(name) / "features", {})
        features.begin()
        features.finish()
        stage = Stage("soft_targets", folder, {}, [features.out])
        stage.begin()
        writing = config.frames / bench.seconds(write, "cpu", repeats=3)
        about = {"num_pdfs": classes, "temperatures": [1.0], "mean": "arithmetic", "tail": "none", "prior": None}
        write_store(folder, 1, features.out, [], **about)
        stage.finish()
        read = reading(config, folder, features.out, preset)
        return {"entropy, nats": config.entropy, "written, frames/s": round(writing), **read}


def sharpness(logits: Tensor, entropy: float) -> float:
    """The factor of ``logits`` that gives their softmax this mean entropy in nats, by bisection."""
    low, high = 0.0, 100.0
    for _ in range(40):
        middle = (low + high) / 2
        found = torch.special.entr((middle * logits).softmax(1)).sum(1).mean().item()
        low, high = (middle, high) if found > entropy else (low, middle)
    return low


def reading(config: Config, folder: Path, features: Path, preset: str) -> dict[str, Any]:
    """Size of a store, and speed of opening it (with its checksums) and of batches of random frames from it."""

    def join() -> TargetRows:
        store = SoftTargets(folder, features)
        return TargetRows.join([store.read(cut) for cut in itertools.islice(store, 2000)])

    rows, senones = join(), SoftTargets(folder, features).num_pdfs
    order = np.random.default_rng(0).permutation(len(rows))

    def batches() -> Iterator[object]:
        for at in range(0, len(order), BATCH):
            yield rows.batch(order[at : at + BATCH])

    seconds = bench.seconds(join, "cpu", repeats=3) + bench.seconds(lambda: sum(1 for _ in batches()), "cpu", repeats=3)
    training = consumption(config, preset, senones, rows.batch(order[:BATCH]))
    size, dense = rows.nbytes / len(rows), 2 * senones
    return {
        "senones": senones,
        "bytes a frame": size,
        "dense float16": dense,
        "times smaller": dense / size,
        "read, frames/s": round(len(rows) / seconds),
        f"training {preset}, frames/s": round(training),
        "times as fast as training": len(rows) / seconds / training,
    }


def consumption(config: Config, preset: str, senones: int, soft: CompactTargets) -> float:
    """Frames a second of training updates on one batch, so without any loading."""
    layers, width = PRESETS[preset]
    model = AcousticModel(Shape(layers, width, senones)).to(config.device)
    _, dtype = device_and_dtype(config.device, "auto")
    step = Step(model, 1.0, 0.5, dtype, 0.01)
    windows = torch.randn(BATCH, model.shape.window * NUM_MELS, device=config.device).to(dtype)
    labels = torch.randint(senones, (BATCH,), device=config.device)
    batch = Batch(windows, labels, soft.to(config.device))
    return BATCH / bench.seconds(lambda: step(batch, 1e-3), config.device, repeats=3)


if __name__ == "__main__":
    main(tyro.cli(Config))
