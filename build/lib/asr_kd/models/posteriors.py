"""Logits and posteriors of networks and ensembles."""

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.losses import Mean, average_distributions
from asr_kd.models.network import (
    AcousticModel,
    Chunks,
    context_of,
    is_window_classifier,
    outputs,
    segment_of,
    window_of,
)
from asr_kd.models.windows import context_windows

#: Frames (10 s) of context that a network gets whose context has no bound.
UNBOUNDED = 1000
#: Frames (1 min) of an utterance that other networks than window classifiers see at once, which bounds memory.
PART_FRAMES = 6000


@torch.no_grad()
def compute_logits(model: AcousticModel, inputs: Tensor, dtype: torch.dtype, chunks: Chunks | None = None) -> Tensor:
    """Return ``outputs`` (N, num_senones) in float32, computed with matrix products in ``dtype``."""
    with torch.autocast(inputs.device.type, dtype, enabled=dtype != torch.float32):
        return outputs(model, inputs, chunks).float()


@torch.inference_mode()
def ensemble_logits(models: Sequence[AcousticModel], features: np.ndarray, frames: slice = slice(None)) -> list[Tensor]:
    """Return the logits of each network for one utterance, (T, C).

    Args:
        models: networks in evaluation mode, of any kinds but the same senones.
        features: (T, D) normalised features.
        frames: the frames of which logits are returned, by default all; the others are only context.

    Returns:
        Logits in the dtype of the networks' matrix products (``load_ensemble``).
    """
    place = next(models[0].parameters()).device
    rows = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32)).to(place)
    count = len(range(len(rows))[frames])
    # Networks of the same context share one copy of the windows.
    windows = {
        (window_of(model), dtype): _pad_rows(context_windows(rows.to(dtype), *window_of(model))[frames])
        for model, dtype in ((m, _dtype(m)) for m in models if is_window_classifier(m))
    }
    return [
        model.forward_windows(windows[window_of(model), _dtype(model)])[:count]
        if is_window_classifier(model) else _part_logits(model, rows, *frames.indices(len(rows))[:2])
        for model in models
    ]  # fmt: skip


def _dtype(model: AcousticModel) -> torch.dtype:
    """The dtype of the matrix products of a window classifier, whose weights were converted to it."""
    return next(model.parameters()).dtype


def utterance_inputs(model: AcousticModel, rows: Tensor, start: int, stop: int) -> tuple[Tensor, Chunks | None]:
    """Return what ``outputs`` takes for the frames from ``start`` to ``stop`` of an utterance (T, D)."""
    if is_window_classifier(model):
        return context_windows(rows, *window_of(model))[start:stop], None
    segment = segment_of(model)
    left, right = context_of(model, UNBOUNDED)
    begin = max(0, start // segment * segment - left)  # a multiple of the segment
    end = min(len(rows), -(-stop // segment) * segment + right)
    kept = torch.arange(start - begin, stop - begin, device=rows.device)
    return rows[None, begin:end], Chunks(torch.tensor([end - begin], device=rows.device), kept)


def _part_logits(model: AcousticModel, rows: Tensor, start: int, stop: int) -> Tensor:
    """Return the logits (stop − start, C) of frames of an utterance (T, D), computed in parts."""
    segment = segment_of(model)
    size = max(PART_FRAMES // segment, 1) * segment
    edges = [start, *range((start // segment) * segment + size, stop, size), stop]
    parts = [outputs(model, *utterance_inputs(model, rows, a, b)) for a, b in pairwise(edges) if a < b]
    return torch.cat(parts or [rows.new_zeros(0, model.network.num_senones)])


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
