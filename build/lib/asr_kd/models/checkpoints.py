"""Networks on disk: weights as safetensors, and the senone prior."""

import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from asr_kd.common.checksums import SEAL
from asr_kd.common.errors import UserError
from asr_kd.common.storage import atomic_path, load_array, verify
from asr_kd.models.device import device_and_dtype, largest_layer
from asr_kd.models.dnn import DNN
from asr_kd.models.network import AcousticModel, Network, read_network


def load_model(folder: Path | str, device: str = "cpu") -> AcousticModel:
    """Return the best checkpoint of a model folder, in evaluation mode.

    Raises:
        UserError: the model is missing or damaged.
    """
    folder = Path(folder)
    model = read_network(folder).build()
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict(load_tensors(folder / "model.safetensors", shapes))
    return model.to(device).eval()


def load_ensemble(folders: Sequence[Path], device: str) -> tuple[list[AcousticModel], str]:
    """Return networks as ``load_model`` does, and their device; products of a ``DNN`` are in the faster dtype.

    Args:
        device: cpu, cuda or auto.

    Raises:
        UserError: a model is missing or damaged.
    """
    device, _ = device_and_dtype(device, "float32")
    models = [load_model(folder) for folder in folders]
    for model in models:
        if isinstance(model, DNN):
            model.convert_weights(device_and_dtype(device, "auto", largest_layer(models[0]))[1])
        model.to(device)
    return models, device


def warm_start(folder: Path, network: Network) -> AcousticModel:
    """Return a network with the size and the weights of the one in ``folder``, and with the dropout of ``network``.

    Raises:
        UserError: the network is missing or damaged, or its inputs or senones are not those of ``network``.
    """
    other = load_model(folder)
    description = other.network
    model = description.with_args(dropout=network.args.get("dropout", 0.0)).build()
    expected = network.build()
    ends = [(n.name, n.num_senones, n.feature_dim, n.delay) for n in (description, network)]
    if ends[0] != ends[1] or (other.left, other.right) != (expected.left, expected.right):
        raise UserError(
            f"the network in {folder} has other inputs or classes: give --start-from a network of this experiment"
        )
    model.load_state_dict(other.state_dict())
    return model


def load_tensors(path: Path, shapes: dict[str, torch.Size] | None = None) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file.

    Args:
        shapes: names and shapes that the tensors must have; default: any.

    Raises:
        UserError: the file is missing or damaged, belongs to another model, or has weights that are not finite.
    """
    try:
        tensors = load_file(verify(path))
        with safe_open(path, "pt") as file:
            written = (file.metadata() or {}).get(SEAL)
        if written is not None and written != str(_checksum(tensors)):
            raise OSError("its checksum differs")
    except FileNotFoundError:
        raise UserError(f"{path} is missing: train the model first (python -m asr_kd.train)") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): delete its folder and train again") from None
    if shapes is not None and {n: t.shape for n, t in tensors.items()} != shapes:
        raise UserError(f"{path} does not fit its model.json: delete its folder and train again")
    if name := not_finite(tensors):
        raise UserError(f"{path} is no finished network ({name} is not finite): delete its folder and train again")
    return tensors


def not_finite(tensors: Mapping[str, Tensor]) -> str:
    """Return the name of a tensor with NaN or infinite numbers; "" if there is none."""
    return next((name for name, tensor in tensors.items() if not tensor.isfinite().all()), "")


def load_log_prior(folder: Path) -> np.ndarray:
    """Return the log prior of the senones (C,), float32, from the training alignment.

    Raises:
        UserError: it is missing or damaged, or has another number of senones than the network.
    """
    path, senones = folder / "log_prior.npy", read_network(folder).num_senones
    prior = load_array(path)
    if prior.shape != (senones,):
        raise UserError(
            f"{path} is damaged (its shape is {prior.shape}, and the network has {senones} senones): train it again"
        )
    return prior


def cpu_state_dict(model: AcousticModel) -> dict[str, Tensor]:
    """Return the weights by name, contiguous and on the CPU, as safetensors needs them."""
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file with a checksum; it gets its name after its content is safe on disk.

    Raises:
        UserError: weights, or moments of the optimiser, are not finite.
    """
    if name := not_finite(tensors):
        raise UserError(f"{path} would be no network ({name} is not finite): lower the learning rate and train again")
    with atomic_path(path) as temporary:
        try:
            save_file(tensors, temporary, {**(metadata or {}), SEAL: str(_checksum(tensors))})
        except SafetensorError as error:  # its text alone tells a full disk from anything else
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    """The CRC-32 of weights with their names, types and shapes."""
    value = 0
    for name in sorted(tensors):
        tensor = tensors[name]
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), value)
        value = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, value)
    return value
