"""``python -m asr_kd.specialists.classify``: a network for images: a generalist, a member of an ensemble, or a student.
(For speech that is ``asr_kd.train``.)"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from asr_kd.parallel import Workers
from asr_kd.storage import Stage, UserError


@dataclass
class Config(Workers):
    """Train networks on images, on labels, soft targets or both."""

    images: Path
    """Folder of images (made by asr_kd.specialists.images)."""
    out: Path
    """Each network goes to OUT/seed-N."""
    seeds: tuple[int, ...] = (0,)
    """One network for each seed."""
    layers: int = 3
    """Hidden layers of ReLUs."""
    width: int = 1000
    """Units in each hidden layer."""
    dropout: float = 0.2
    """Share of hidden units dropped in training."""
    batch_norm: bool = True
    """Normalise the input of every ReLU over the batch."""
    start_from: Path | None = None
    """Network whose size and weights it begins with; none: random weights."""
    soft_targets: Path | None = None
    """Store of soft targets (made by asr_kd.specialists.targets); none: labels alone."""
    hard_weight: float = 0.1
    """Weight of the labels beside soft targets, 0 to 1."""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 512
    """Images a batch."""
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule (AdamW)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Matrix products in bfloat16 (weights stay float32); auto: where the processor or GPU has it."""
    device: str = "auto"
    """cpu, cuda, or auto."""


def main(config: Config) -> None:
    if config.epochs < 1 or config.batch_size < 1 or config.layers < 1 or config.width < 1:
        raise UserError("--epochs, --batch-size, --layers and --width must be positive: correct the flag")
    inputs = [config.images, *(path for path in (config.start_from, config.soft_targets) if path is not None)]
    stages = [
        (Stage("classify", config.out / f"seed-{seed}", config, inputs, {"seeds": seed}), (config, seed))
        for seed in config.seeds
    ]
    todo = [item for item in stages if item[0].begin()]
    if not todo:
        return
    from asr_kd.parallel import run_stages
    from asr_kd.specialists.classify import train_network  # not from __main__, which workers cannot import

    with config.executor(len(stages)) as executor:
        run_stages(executor, train_network, todo, "networks", "network")


def train_network(job: tuple[Config, int]) -> dict[str, Any]:
    """Train one network into OUT/seed-N; returns figures for the completion mark."""
    import dataclasses

    import torch

    from asr_kd.models import AcousticModel, continued, device_and_dtype
    from asr_kd.specialists.source import ImageSource
    from asr_kd.step import Step
    from asr_kd.storage import write_json
    from asr_kd.trainer import fit, save_tensors, weights_of

    config, seed = job
    device, dtype = device_and_dtype(config.device, config.precision)
    torch.manual_seed(seed)
    images = ImageSource(config.images)
    shape = images.shape(config.layers, config.width)
    shape = dataclasses.replace(shape, dropout=config.dropout, batch_norm=config.batch_norm)
    model = AcousticModel(shape) if config.start_from is None else continued(config.start_from, shape)
    model.to(device)
    soft, temperature = None, 1.0
    if config.soft_targets is not None:
        from asr_kd.specialists.targets import ImageTargets

        targets = ImageTargets(config.soft_targets, config.images)
        soft, temperature = targets.batch, targets.temperature
    batches = images.loader(config.batch_size, dtype, device, soft=soft)
    step = Step(model, temperature, config.hard_weight, dtype, weight_decay=0.01)
    out = config.out / f"seed-{seed}"
    figures = fit(step, batches, config.epochs, config.learning_rate, seed, f"{config.out.name} seed {seed}")
    write_json(out / "model.json", {"shape": vars(model.shape)})
    save_tensors(out / "model.safetensors", weights_of(model))
    return {**figures, "parameters": model.parameters_count()}


if __name__ == "__main__":
    from asr_kd.cli import run

    run(Config, main)
