"""Networks on disk."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_path, read_json
from asr_kd.models.dnn import AcousticModel, Shape


def load_model(folder: Path | str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> AcousticModel:
    """The best checkpoint in a model folder, in evaluation mode.

    Args:
        dtype: see ``AcousticModel.convert_weights``.

    Raises:
        UserError: the folder holds no model, or a damaged one.
    """
    folder = Path(folder)
    shape = Shape(**read_json(folder / "model.json")["shape"])
    model = AcousticModel(shape)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict(load_tensors(folder / "model.safetensors", shapes))
    return model.convert_weights(dtype).to(device).eval()


def warm_start(folder: Path, shape: Shape) -> AcousticModel:
    """A network with the size and the weights of another one, to be trained on with the dropout of ``shape``.

    Raises:
        UserError: the other network is missing, damaged, or of other inputs or classes than ``shape``.
    """
    other = load_model(folder)
    model = AcousticModel(dataclasses.replace(other.shape, dropout=shape.dropout))
    ends = [(s.num_pdfs, s.left, s.right, s.feature_dim) for s in (other.shape, shape)]
    if ends[0] != ends[1]:
        raise UserError(
            f"the network in {folder} has other inputs or classes: give --start-from one of this experiment"
        )
    model.load_state_dict(other.state_dict())
    return model


def load_tensors(path: Path, shapes: dict[str, torch.Size] | None = None) -> dict[str, Tensor]:
    """Read safetensors; with ``shapes``, names and shapes must be exactly these.

    Raises:
        UserError: the file is missing, damaged, or another model's.
    """
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path} is missing: train the model first (python -m asr_kd.train)") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and train again") from None
    if shapes is not None and {n: t.shape for n, t in tensors.items()} != shapes:
        raise UserError(f"{path} does not fit its model.json: delete its folder and train again")
    return tensors


def load_log_prior(folder: Path | str) -> np.ndarray:
    """(C,) float32 log prior of the senones, from the training alignment."""
    path = Path(folder) / "log_prior.npy"
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is missing or damaged ({error}): train the model again") from None


def cpu_state_dict(model: AcousticModel) -> dict[str, Tensor]:
    """The weights by name, as safetensors wants them."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, safe on the disk before it takes its name."""
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
