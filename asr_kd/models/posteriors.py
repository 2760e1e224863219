"""Logits and posteriors of networks and ensembles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asr_kd.losses import Mean, average_distributions
from asr_kd.models.dnn import AcousticModel
from asr_kd.models.windows import context_windows


@torch.no_grad()
def compute_logits(model: AcousticModel, windows: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits (N, num_pdfs) float32 of ``windows``, with matrix products in ``dtype``."""
    with torch.autocast(windows.device.type, dtype, enabled=dtype != torch.float32):
        return model(windows).float()


@torch.inference_mode()
def ensemble_logits(models: Sequence[AcousticModel], features: np.ndarray) -> list[Tensor]:
    """Each network's logits (T, C) for one utterance.

    Args:
        models: networks in evaluation mode, of any shapes but the same senones.
        features: (T, D) normalised log-mels.

    Returns:
        In the dtype of the networks' products (``load_model``).
    """
    frames = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(models[0].output.weight)
    contexts = {(model.shape.left, model.shape.right) for model in models}
    # Copied out once for all networks of the same context: each would do so by itself.
    windows = {context: _rounded_up(context_windows(frames, *context)) for context in contexts}
    return [model(windows[model.shape.left, model.shape.right])[: len(frames)] for model in models]


def _rounded_up(rows: Tensor, multiple: int = 32) -> Tensor:
    """With rows of zeros at the end: oneDNN prepares products anew for every number of rows, and keeps a thousand such
    preparations in memory."""
    found = rows.new_zeros(-(-len(rows) // multiple) * multiple, rows.shape[1])
    found[: len(rows)] = rows
    return found


def posteriors(
    models: Sequence[AcousticModel], features: np.ndarray, temperature: float = 1.0, mean: Mean = "arithmetic"
) -> np.ndarray:
    """Senone posteriors of a network, or averaged of an ensemble: (T, C) float32.  See ``ensemble_logits``."""
    return average_distributions(ensemble_logits(models, features), temperature, mean).cpu().numpy()
