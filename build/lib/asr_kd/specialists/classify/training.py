"""Trains a network on images: a generalist, a member of an ensemble, or a student (for speech: ``asr_kd.train``)."""

from typing import Any

import torch

from asr_kd.common.storage import write_json
from asr_kd.models.checkpoints import cpu_state_dict, save_tensors, warm_start
from asr_kd.models.device import device_and_dtype
from asr_kd.models.network import num_parameters
from asr_kd.specialists.classify.config import Config
from asr_kd.specialists.examples import ImageExamples
from asr_kd.specialists.targets.compute import ImageTargets
from asr_kd.train.fit import fit
from asr_kd.train.step import Step


def train_network(job: tuple[Config, int]) -> dict[str, Any]:
    """Train one network, write it to OUT/seed-N, and return figures for the completion mark."""
    config, seed = job
    device, dtype = device_and_dtype(config.device, config.precision)
    torch.manual_seed(seed)
    images = ImageExamples(config.images)
    network = images.network(config.layers, config.width).with_args(
        dropout=config.dropout, batch_norm=config.batch_norm
    )
    model = network.build() if config.start_from is None else warm_start(config.start_from, network)
    model.to(device)
    soft, temperature = None, 1.0
    if config.soft_targets is not None:
        targets = ImageTargets(config.soft_targets, config.images)
        soft, temperature = targets.batch, targets.temperature
    batches = images.loader(config.batch_size, dtype, device, soft=soft)
    step = Step(model, temperature, config.hard_weight, dtype, weight_decay=0.01)
    out = config.out / f"seed-{seed}"
    figures = fit(step, batches, config.epochs, config.learning_rate, seed, f"{config.out.name} seed {seed}")
    write_json(out / "model.json", {"network": model.network.to_json()})
    save_tensors(out / "model.safetensors", cpu_state_dict(model))
    return {**figures, "parameters": num_parameters(model)}
