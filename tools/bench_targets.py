"""Size and speed of the store of soft targets, compared with dense float16 and with the speed of training.

    python tools/bench_targets.py --out targets.json
    python tools/bench_targets.py --store recipes/librispeech/exp/embedded/soft_targets \
        --features recipes/librispeech/exp/embedded/features

The posteriors are random with a given entropy, or those of a recipe's store.
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
from asr_kd.losses import CompactTargets
from asr_kd.models.device import device_and_dtype
from asr_kd.models.dnn import dnn
from asr_kd.models.network import window_of
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.soft_targets.shards import write_shard, write_store
from asr_kd.soft_targets.store import SoftTargets
from asr_kd.train.batches import Batch
from asr_kd.train.step import Step

BATCH_FRAMES, CUT_FRAMES, FEATURES = 1024, 500, 40


@dataclasses.dataclass
class Config:
    """Measure the size and speed of the store."""

    sizes: tuple[str, ...] = ("medium:600", "paper:14000")
    """Networks whose training reads the store, PRESET:SENONES each."""
    frames: int = 20_000
    """Number of frames to write and read."""
    entropy: float = 1.7
    """Mean entropy of the random posteriors in nats; the recipes' ensembles have 1.5 to 1.9 at T = 1."""
    floor: float = 0.02
    """Floor of the probabilities, see asr_kd.soft_targets."""
    store: Path | None = None
    """Folder of a recipe's store to measure instead (size and speed of reading)."""
    features: Path | None = None
    """Features folder of that store."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Device of the training that reading is compared with: cpu or cuda."""
    out: Path | None = None
    """JSON file for the results."""


def main(config: Config) -> None:
    torch.manual_seed(0)
    if config.store is not None and config.features is not None:
        rows = [{"store": str(config.store), **reading(config, config.store, config.features, "medium")}]
    else:
        rows = [measure(config, *size.split(":")) for size in config.sizes]
    bench.report(config, rows)


def measure(config: Config, preset: str, senones: str) -> dict[str, Any]:
    """Size and speed of a store of random posteriors."""
    classes = int(senones)
    cuts = [f"cut-{number:06d}" for number in range(config.frames // CUT_FRAMES)]
    logits = torch.randn(CUT_FRAMES, classes)
    posteriors = (scale_for_entropy(logits, config.entropy) * logits).softmax(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "store"

        def write() -> None:
            generator = torch.Generator().manual_seed(0)
            rows = ((cut, [TargetRows.threshold_sample(posteriors, config.floor, generator)]) for cut in cuts)
            write_shard(folder / "shard-00000", (1.0,), rows, {})

        features = Stage("features", Path(name) / "features", {})
        features.begin()
        features.finish()
        stage = Stage("soft_targets", folder, {}, [features.out])
        stage.begin()
        writing = config.frames / bench.seconds(write, "cpu", repeats=3)
        metadata = {"num_classes": classes, "temperatures": [1.0], "mean": "arithmetic", "tail": "none", "prior": None}
        metadata["senones"] = ""
        write_store(folder, 1, features.out, [], **metadata)
        stage.finish()
        read = reading(config, folder, features.out, preset)
        return {"entropy, nats": config.entropy, "writing, frames/s": round(writing), **read}


def scale_for_entropy(logits: Tensor, entropy: float) -> float:
    """The factor of ``logits`` for which their softmax has a mean entropy of ``entropy`` nats, found by bisection."""
    low, high = 0.0, 100.0
    for _ in range(40):
        middle = (low + high) / 2
        mean = torch.special.entr((middle * logits).softmax(1)).sum(1).mean().item()
        low, high = (middle, high) if mean > entropy else (low, middle)
    return low


def reading(config: Config, folder: Path, features: Path, preset: str) -> dict[str, Any]:
    """Size of a store, and the speed of opening it (with its checksums) and of reading batches of random frames."""

    def join() -> TargetRows:
        store = SoftTargets(folder, features)
        return TargetRows.join([store.read(cut) for cut in itertools.islice(store, 2000)])

    rows, senones = join(), SoftTargets(folder, features).num_classes
    order = np.random.default_rng(0).permutation(len(rows))

    def batches() -> Iterator[object]:
        for start in range(0, len(order), BATCH_FRAMES):
            yield rows.batch(order[start : start + BATCH_FRAMES])

    seconds = bench.seconds(join, "cpu", repeats=3) + bench.seconds(lambda: sum(1 for _ in batches()), "cpu", repeats=3)
    training = training_speed(config, preset, senones, rows.batch(order[:BATCH_FRAMES]))
    size, dense = rows.nbytes / len(rows), 2 * senones
    return {
        "senones": senones,
        "bytes per frame": size,
        "dense float16, bytes per frame": dense,
        "dense / store": dense / size,
        "reading, frames/s": round(len(rows) / seconds),
        f"training {preset}, frames/s": round(training),
        "reading / training speed": len(rows) / seconds / training,
    }


def training_speed(config: Config, preset: str, senones: int, soft: CompactTargets) -> float:
    """Frames per second of training updates on one batch, without loading."""
    model = dnn(FEATURES, senones, preset).build().to(config.device)
    _, dtype = device_and_dtype(config.device, "auto")
    step = Step(model, 1.0, 0.5, dtype, 0.01)
    windows = torch.randn(BATCH_FRAMES, (sum(window_of(model)) + 1) * FEATURES, device=config.device).to(dtype)
    labels = torch.randint(senones, (BATCH_FRAMES,), device=config.device)
    batch = Batch(windows, labels, soft.to(config.device))
    return BATCH_FRAMES / bench.seconds(lambda: step(batch, 1e-3), config.device, repeats=3)


if __name__ == "__main__":
    main(tyro.cli(Config))
