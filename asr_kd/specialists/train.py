"""``python -m asr_kd.specialists.train``: all specialists, from the generalist's weights, each a job of its own."""

from __future__ import annotations

import dataclasses
import resource
import shutil
from pathlib import Path
from typing import Any

from asr_kd.cli import run
from asr_kd.parallel import Workers
from asr_kd.specialists import source
from asr_kd.specialists.special import CLASSES, folder_of, folders
from asr_kd.storage import Stage, UserError, save_array, write_json


@dataclasses.dataclass(kw_only=True)
class Config(Workers, source.Config):
    """Train specialists: half their examples are of their classes, half of the others, which are one class to them."""

    clusters: Path
    """Folder that asr_kd.specialists.assign filled."""
    out: Path
    """Each specialist goes to OUT/specialist-NN."""
    full: bool = False
    """An output for every class, instead of one for all that are not special (section 6.1)."""
    soft_weight: float = 0.0
    """Weight of the generalist's soft targets beside labels (section 6), 0 to 1; 0: labels alone."""
    temperature: float = 1.0
    """Of the generalist's soft targets."""
    dropout: float = 0.2
    """Share of hidden units dropped in training."""
    epochs: int = 3
    """Passes over a specialist's examples."""
    batch_size: int = 512
    """Examples a batch."""
    learning_rate: float = 3e-4
    """Peak of the one-cycle schedule (AdamW)."""
    seed: int = 0
    """Of the order of examples, dropout, and which of the other classes' examples are seen."""


def main(config: Config) -> None:
    if not 0 <= config.soft_weight <= 1 or config.epochs < 1 or config.batch_size < 1 or not 0 <= config.dropout < 1:
        raise UserError("--soft-weight must lie in [0, 1], --dropout in [0, 1), --epochs and --batch-size be positive")
    from asr_kd.specialists.assign import load_clusters

    groups = load_clusters(config.clusters)
    wanted = [folder_of(config.out, number) for number in range(len(groups))]
    for left in set(folders(config.out)) - set(wanted):  # of an earlier, finer clustering
        shutil.rmtree(left)
    inputs = [*config.folders, config.clusters]
    stages = []
    for number, classes in enumerate(groups):
        stage = Stage("specialist", wanted[number], config, inputs, {"classes": classes})
        stages.append((stage, (config, number, classes)))
    todo = [item for item in stages if item[0].begin()]
    if not todo:
        return
    from asr_kd.parallel import run_stages
    from asr_kd.specialists.train import train_specialist  # not from __main__, which workers cannot import

    with config.executor(len(stages)) as executor:
        run_stages(executor, train_specialist, todo, "specialists", "specialist")


def train_specialist(job: tuple[Config, int, list[int]]) -> dict[str, Any]:
    """Train one specialist; returns figures for the completion mark: examples, loss, seconds, peak memory."""
    import numpy as np
    import torch

    from asr_kd.models import device_and_dtype, load_model
    from asr_kd.specialists.special import Special, SpecialistLoader, start_from
    from asr_kd.step import Step
    from asr_kd.trainer import fit, save_tensors, weights_of

    config, number, classes = job
    examples = source.open_source(config)
    device, dtype = device_and_dtype("auto", "auto")
    special = Special(np.array(classes), examples.counts, config.full)
    generalist = load_model(config.generalist, device)
    torch.manual_seed(config.seed)
    model = start_from(generalist, special, config.dropout).to(device)
    loader = examples.loader(config.batch_size, dtype, device, special)
    teacher = generalist if config.soft_weight else None
    batches = SpecialistLoader(loader, special, teacher, config.temperature)
    step = Step(model, config.temperature, 1 - config.soft_weight, dtype, weight_decay=0.01)
    title = f"specialist {number}"
    figures = fit(step, batches, config.epochs, config.learning_rate, 1000 * config.seed + number, title)
    out = folder_of(config.out, number)
    save_array(out / CLASSES, special.classes)
    write_json(out / "model.json", {"shape": vars(model.shape), "correction": special.correction, "full": special.full})
    save_tensors(out / "model.safetensors", weights_of(model))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**figures, "classes": len(special.classes), "peak_mb": round(peak)}


if __name__ == "__main__":
    run(Config, main)
