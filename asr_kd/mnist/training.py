"""Trains one network on MNIST and writes its weights and its logits on the test digits."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from asr_kd.common.storage import save_array, write_json
from asr_kd.losses import logit_matching_loss
from asr_kd.mnist.config import Config
from asr_kd.mnist.digits.read import SIZE, Digits, load_digits
from asr_kd.mnist.images import ImageLoader, Teachers, as_inputs
from asr_kd.models.checkpoints import load_model, save_tensors, weights_of
from asr_kd.models.dnn import AcousticModel, Shape
from asr_kd.models.precision import device_and_dtype
from asr_kd.train.batches import Batch
from asr_kd.train.fit import fit
from asr_kd.train.step import Step

TEST_LOGITS = "test_logits.npy"
BLOCK = 5000  # images scored at once


def train_network(config: Config) -> dict[str, Any]:
    """Train one network into ``config.out``.

    Returns:
        Figures for the completion mark: errors on all test and training digits and on those held out, parameters, the
        last epoch's loss.
    """
    train, test = load_digits(config.data)
    device, dtype = device_and_dtype(config.device, config.precision)
    teachers = Teachers(config.teachers, config.temperature, dtype, device) if config.teachers else None
    seen, held_out = train.split(config.held_out)
    chosen = seen.only(config.digits)
    distortion = (config.jitter, config.bend, config.input_dropout)
    images = ImageLoader(chosen, config.batch_size, *distortion, teachers, dtype, device)
    torch.manual_seed(config.seed)
    shape = Shape(config.layers, config.width, 10, left=0, right=0, feature_dim=SIZE * SIZE, dropout=config.dropout)
    model = AcousticModel(shape).to(device)
    kind = _LogitMatching if math.isinf(config.temperature) and teachers else Step
    step = kind(model, config.temperature, config.hard_weight, dtype, config.weight_decay)
    title = f"{config.out.parent.name}/{config.out.name}"
    after = functools.partial(limit_norms, model, config.max_norm) if config.max_norm else None
    figures = fit(step, images, config.epochs, config.learning_rate, config.seed, title, after)
    model.eval()
    counts = {"held_out_errors": errors(logits(model, held_out), held_out)} if config.held_out else {}
    return {**figures, **counts, **_finish(config, model, train, test)}


def _finish(config: Config, model: AcousticModel, train: Digits, test: Digits) -> dict[str, Any]:
    write_json(config.out / "model.json", {"shape": vars(model.shape)})
    save_tensors(config.out / "model.safetensors", weights_of(model))
    found = logits(model, test)
    save_array(config.out / TEST_LOGITS, found)
    return {
        "parameters": model.parameters_count(),
        "test_errors": errors(found, test),
        "train_errors": errors(logits(model, train), train),
    }


@torch.no_grad()
def limit_norms(model: AcousticModel, most: float) -> None:
    """Shorten the weights that enter each hidden unit to ``most`` (Hinton et al. 2012, section 2)."""
    for layer in model.hidden:
        weight: Tensor = layer.weight  # type: ignore[assignment]
        weight.mul_((most / weight.norm(dim=1, keepdim=True)).clamp_(max=1))


@torch.inference_mode()
def logits(model: AcousticModel, digits: Digits) -> np.ndarray:
    """(N, 10) float32, in full precision."""
    device = str(next(model.parameters()).device)
    return torch.cat([model(block) for block in as_inputs(digits, device=device).split(BLOCK)]).cpu().numpy()


def errors(found: np.ndarray, digits: Digits) -> int:
    """Digits that the (N, 10) logits get wrong."""
    return int((found.argmax(1) != digits.labels).sum())


def load_logits(folder: Path, digits: Digits) -> np.ndarray:
    """A trained network's logits on any digits."""
    return logits(load_model(folder), digits)


class _LogitMatching(Step):
    """The limit of high temperatures: ``batch.soft`` are the teachers' logits."""

    def loss(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(batch.soft, Tensor)
        soft = logit_matching_loss(logits, batch.soft)
        hard = F.cross_entropy(logits, batch.labels)
        return {"loss": (1 - self.hard_weight) * soft + self.hard_weight * hard, "soft": soft, "hard": hard}
