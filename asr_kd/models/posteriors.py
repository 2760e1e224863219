"""Logits and posteriors of networks and ensembles."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.losses import Mean, average_distributions
from asr_kd.models.dnn import AcousticModel
from asr_kd.models.windows import context_windows


@torch.no_grad()
def compute_logits(model: AcousticModel, windows: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the logits of ``windows``, (N, num_pdfs) float32, computed with matrix products in ``dtype``."""
    with torch.autocast(windows.device.type, dtype, enabled=dtype != torch.float32):
        return model(windows).float()


@torch.inference_mode()
def ensemble_logits(models: Sequence[AcousticModel], features: np.ndarray, frames: slice = slice(None)) -> list[Tensor]:
    """Return the logits of each network for one utterance, (T, C).

    Args:
        models: networks in evaluation mode, of any shapes but the same senones.
        features: (T, D) normalised log-mels.
        frames: the frames of which logits are returned, by default all; the others are only context.

    Returns:
        Logits in the dtype of the networks' matrix products (``load_model``).
    """
    rows = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(models[0].output.weight)
    count = len(range(len(rows))[frames])
    contexts = {(model.shape.left, model.shape.right) for model in models}
    # Networks of the same context share one copy of the windows.
    windows = {context: _pad_rows(context_windows(rows, *context)[frames]) for context in contexts}
    return [model(windows[model.shape.left, model.shape.right])[:count] for model in models]


def _pad_rows(rows: Tensor, multiple: int = 32) -> Tensor:
    """Append rows of zeros up to a multiple: oneDNN compiles a kernel per number of rows, and caches a thousand."""
    padded = rows.new_zeros(-(-len(rows) // multiple) * multiple, rows.shape[1])
    padded[: len(rows)] = rows
    return padded


def posteriors(
    models: Sequence[AcousticModel], features: np.ndarray, temperature: float = 1.0, mean: Mean = "arithmetic",
    frames: slice = slice(None),
) -> np.ndarray:  # fmt: skip
    """Return the senone posteriors of a network, or the average of an ensemble's, (T, C) float32.

    See ``ensemble_logits`` for ``models``, ``features`` and ``frames``, ``average_distributions`` for the others.
    """
    return average_distributions(ensemble_logits(models, features, frames), temperature, mean).cpu().numpy()


def check_finite(probabilities: Tensor | np.ndarray, name: str) -> None:
    """Check posteriors (T, C) or soft targets of what is called ``name``, in one pass over them.

    Raises:
        UserError: some of them are NaN or infinite.
    """
    if not math.isfinite(float(probabilities.sum())):
        raise UserError(
            f"the posteriors of {name} are not finite: its features, or a network, are damaged; make the features "
            "again, or train the networks again with a lower --learning-rate"
        )
