"""Trains one specialist, starting from the generalist's weights."""

import resource
from typing import Any

import numpy as np
import torch

from asr_kd.common.storage import save_array, write_json
from asr_kd.models.checkpoints import cpu_state_dict, load_model, save_tensors
from asr_kd.models.device import device_and_dtype
from asr_kd.specialists.examples import open_examples
from asr_kd.specialists.files import CLASSES, specialist_folder
from asr_kd.specialists.specialist import SpecialClasses, SpecialistLoader, initial_specialist
from asr_kd.specialists.train.config import Config
from asr_kd.train.fit import fit
from asr_kd.train.step import Step


def train_specialist(job: tuple[Config, int, list[int]]) -> dict[str, Any]:
    """Train one specialist, and return figures for the completion mark: updates, examples, loss, classes, memory.

    Args:
        job: flags, number of the specialist, its classes.
    """
    config, number, classes = job
    examples = open_examples(config)
    device, dtype = device_and_dtype("auto", "auto")
    special = SpecialClasses(np.array(classes), examples.counts, config.full)
    generalist = load_model(config.generalist, device)
    torch.manual_seed(config.seed)
    model = initial_specialist(generalist, special, config.dropout).to(device)
    loader = examples.loader(config.batch_size, dtype, device, special)
    teacher = generalist if config.soft_weight else None
    batches = SpecialistLoader(loader, special, teacher, config.temperature)
    step = Step(model, config.temperature, 1 - config.soft_weight, dtype, weight_decay=0.01)
    title = f"specialist {number}"
    figures = fit(step, batches, config.epochs, config.learning_rate, 1000 * config.seed + number, title)
    out = specialist_folder(config.out, number)
    save_array(out / CLASSES, special.classes)
    write_json(
        out / "model.json", {"network": model.network.to_json(), "correction": special.correction, "full": special.full}
    )
    save_tensors(out / "model.safetensors", cpu_state_dict(model))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**figures, "classes": len(special.classes), "peak_mb": round(peak)}
