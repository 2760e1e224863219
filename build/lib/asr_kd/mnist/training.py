"""Trains one network on MNIST, and writes its weights and its logits on the test images."""

import functools
import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from asr_kd.common.storage import save_array, write_json
from asr_kd.losses import logit_matching_loss
from asr_kd.mnist.config import Config
from asr_kd.mnist.digits.dataset import SIZE, Digits, load_digits
from asr_kd.mnist.loader import DigitLoader, Teachers, as_inputs
from asr_kd.models.checkpoints import cpu_state_dict, load_model, save_tensors
from asr_kd.models.device import device_and_dtype
from asr_kd.models.dnn import DNN, dnn
from asr_kd.models.network import AcousticModel, num_parameters
from asr_kd.models.posteriors import compute_logits
from asr_kd.train.batches import Batch
from asr_kd.train.fit import fit
from asr_kd.train.step import Step

TEST_LOGITS = "test_logits.npy"
SCORING_BATCH = 5000


def train_network(config: Config) -> dict[str, Any]:
    """Train one network and write it to ``config.out``.

    Returns:
        figures for the completion mark: updates, loss of the last epoch, number of parameters, and errors on all test
        and training images and on those held out.
    """
    train, test = load_digits(config.data)
    device, dtype = device_and_dtype(config.device, config.precision)
    teachers = Teachers(config.teachers, config.temperature, dtype, device) if config.teachers else None
    train_part, held_out = train.split(config.held_out)
    augmentation = (config.jitter, config.bend, config.input_dropout)
    loader = DigitLoader(train_part.only(config.digits), config.batch_size, *augmentation, teachers, dtype, device)
    torch.manual_seed(config.seed)
    network = dnn(
        SIZE * SIZE, 10, layers=config.layers, width=config.width, left=0, right=0, dropout=config.dropout
    )  # fmt: skip
    model = network.build().to(device)
    step_class = LogitMatchingStep if math.isinf(config.temperature) and teachers else Step
    step = step_class(model, config.temperature, config.hard_weight, dtype, config.weight_decay)
    title = f"{config.out.parent.name}/{config.out.name}"
    after = functools.partial(limit_norms, cast(DNN, model), config.max_norm) if config.max_norm else None
    figures: dict[str, Any] = fit(step, loader, config.epochs, config.learning_rate, config.seed, title, after)
    model.eval()
    if config.held_out:
        figures["held_out_errors"] = count_errors(digit_logits(model, held_out), held_out)
    write_json(config.out / "model.json", {"network": network.to_json()})
    save_tensors(config.out / "model.safetensors", cpu_state_dict(model))
    test_logits = digit_logits(model, test)
    save_array(config.out / TEST_LOGITS, test_logits)
    return {
        **figures,
        "parameters": num_parameters(model),
        "test_errors": count_errors(test_logits, test),
        "train_errors": count_errors(digit_logits(model, train), train),
    }


@torch.no_grad()
def limit_norms(model: DNN, max_norm: float) -> None:
    """Scale down the incoming weights of each hidden unit to ``max_norm`` (Hinton et al. 2012, section 2)."""
    for layer in model.hidden:
        weight: Tensor = layer.weight  # type: ignore[assignment]
        weight.mul_((max_norm / weight.norm(dim=1, keepdim=True)).clamp_(max=1))


def digit_logits(model: AcousticModel, digits: Digits) -> np.ndarray:
    """Return logits (N, 10) float32, computed in full precision."""
    device = str(next(model.parameters()).device)
    batches = as_inputs(digits, device=device).split(SCORING_BATCH)
    return torch.cat([compute_logits(model, batch, torch.float32) for batch in batches]).cpu().numpy()


def load_logits(folder: Path, digits: Digits) -> np.ndarray:
    """Return the logits (N, 10) of a trained network."""
    return digit_logits(load_model(folder), digits)


def count_errors(logits: np.ndarray, digits: Digits) -> int:
    """Return the number of images that logits (N, 10) classify wrongly."""
    return int((logits.argmax(1) != digits.labels).sum())


class LogitMatchingStep(Step):
    """The limit of distillation at high temperatures: ``batch.soft`` holds the teachers' logits."""

    def loss(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(batch.soft, Tensor)
        soft = logit_matching_loss(logits, batch.soft)
        hard = F.cross_entropy(logits, batch.labels)
        return {"loss": (1 - self.hard_weight) * soft + self.hard_weight * hard, "soft": soft, "hard": hard}
