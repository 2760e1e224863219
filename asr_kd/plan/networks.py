"""Rates of networks: updates, forward passes and soft targets."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import torch

from asr_kd.losses import average_distributions
from asr_kd.models.device import device_and_dtype
from asr_kd.models.dnn import DNN
from asr_kd.models.network import Network, window_of
from asr_kd.models.posteriors import ensemble_logits, posteriors
from asr_kd.plan.clock import seconds
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.soft_targets.shards import write_shard
from asr_kd.train.batches import Batch, window_reader
from asr_kd.train.step import Step

#: Frames of a measured batch on the CPU; larger batches take hardly less time per frame.
MAX_BATCH = 1024
#: Frames of the measured utterances: several lengths, since memory and products are prepared for each.
UTTERANCES = (200, 350, 500, 650)
#: Typical standard deviation of the logits of a trained network.
LOGIT_STD = 3.0
#: Smallest probability of a class that every soft target keeps (asr_kd.soft_targets --floor).
FLOOR = 0.02
#: Frames held in memory while updates are measured: as in training, more than a cache holds.
UPDATE_FRAMES = 1_000_000


def operations(network: Network) -> float:
    """Floating-point operations of an update per frame: two per weight forward, four backward."""
    return 6.0 * network.num_parameters()


def network_rates(teacher: Network, student: Network, batch: int) -> dict[str, float]:
    return {
        "update": update_seconds(teacher, "cpu", batch, soft=False),
        "student": update_seconds(student, "cpu", batch, soft=True),
        **_targets(teacher),
        "feature": device_and_dtype("cpu", "auto")[1].itemsize,
    }


def update_seconds(network: Network, device: str, batch: int, soft: bool) -> float:
    """Seconds per frame: reading its window from a pool of noise, and its share of an update."""
    frames = min(batch, MAX_BATCH) if device == "cpu" else batch
    _, dtype = device_and_dtype(device, "auto")
    model = network.build().to(device).train()
    step = Step(model, 1.0, 0.5, dtype, 0.01)
    window = sum(window_of(model)) + 1
    pool = torch.randn(UPDATE_FRAMES + window, network.feature_dim, dtype=dtype, device=device)
    windows = window_reader(pool, window)
    labels = torch.randint(network.num_senones, (frames,)).to(device)
    logits = LOGIT_STD * torch.randn(min(frames, MAX_BATCH), network.num_senones)
    rows = TargetRows.threshold_sample(logits.softmax(-1), FLOOR, torch.Generator()) if soft else None
    rows = None if rows is None else TargetRows.join([rows] * (UPDATE_FRAMES // len(rows)))
    draw = np.random.default_rng(0)

    def update() -> None:
        chosen = draw.integers(UPDATE_FRAMES, size=frames)
        targets = None if rows is None else rows.batch(chosen % len(rows)).to(device)
        step(Batch(windows(chosen), labels, targets), 1e-3)

    return seconds(update, device) / frames


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
            yield str(number), [TargetRows.threshold_sample(average, FLOOR, generator)]

    frames = sum(UTTERANCES)
    forward = seconds(lambda: [ensemble_logits(models, features) for features in utterances]) / frames / len(models)
    scoring = seconds(lambda: [posteriors(precise, features) for features in utterances]) / frames
    with tempfile.TemporaryDirectory() as folder:
        kept = seconds(lambda: write_shard(Path(folder, "shard"), (1.0,), targets(), {})) / frames
    return {"forward": forward, "targets": max(0.0, kept - len(models) * forward), "scoring": scoring}
