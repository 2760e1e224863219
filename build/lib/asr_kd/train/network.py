"""The network that the flags describe, with its first weights, its device and the dtype of its products."""

from pathlib import Path

import torch

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.features.front_end import FrontEnd
from asr_kd.models.checkpoints import warm_start
from asr_kd.models.device import device_and_dtype, largest_layer, speedup
from asr_kd.models.dnn import PRESETS
from asr_kd.models.front_end import check_same_front_end
from asr_kd.models.network import NETWORKS, AcousticModel, Network, is_window_classifier
from asr_kd.models.senones import check_same_senones
from asr_kd.train.config import Config, network_args


def network_of(config: Config, num_senones: int, feature_dim: int) -> Network:
    """Return the network that the flags describe."""
    if config.network == "dnn":
        layers, width = PRESETS[config.preset]
        args = {
            "layers": config.layers or layers, "width": config.width or width, "left": config.left,
            "right": config.right, "dropout": config.dropout, "batch_norm": config.batch_norm,
        }  # fmt: skip
    else:
        args = network_args(config.network_args)
    name = NETWORKS.get(config.network, config.network)
    return Network(name, feature_dim, num_senones, args, config.delay)


def initial_network(config: Config) -> AcousticModel:
    """Return the network with random weights, or with those of ``start_from``.

    Raises:
        UserError: it cannot be built, or ``start_from`` does not fit.
    """
    num_senones = int(read_json(config.cuts / "hmm.json")["num_pdfs"])
    network = network_of(config, num_senones, FrontEnd.load(config.features).num_features)
    if config.start_from is None:
        return _with_batches(config, network.build())
    check_same_senones(config.start_from, config.cuts)
    check_same_front_end([config.start_from], config.features)
    return _with_batches(config, warm_start(config.start_from, network))


def _with_batches(config: Config, model: AcousticModel) -> AcousticModel:
    """``model``, if no flag is given of batches that it is not trained on.

    Raises:
        UserError: one is.
    """
    unused: tuple[str, ...] = ("chunk", "batch_chunks") if is_window_classifier(model) else ("batch_size",)
    kind = "shuffled frames" if is_window_classifier(model) else "chunks"
    if config.lattices is not None:
        unused, kind = ("chunk", "batch_chunks", "batch_size"), "whole utterances (--batch-frames)"
    for name in unused:
        if getattr(config, name) != getattr(Config, name):
            raise UserError(f"--{name.replace('_', '-')} has no effect on {config.network}, which is trained on {kind}")
    return model


def device_and_dtype_of(config: Config, model: AcousticModel, out: Path) -> tuple[str, torch.dtype]:
    """Return what the flags mean here; a run that is resumed in ``out`` computes as it began."""
    precision: str = config.precision
    size = largest_layer(model)
    if precision == "auto" and (out / "last.safetensors").is_file():
        precision = str(read_json(out / "model.json").get("precision", precision))
    device, dtype = device_and_dtype(config.device, precision, size)
    if precision == "auto":
        ratio = speedup(device, size)
        print(f"{out}: products in {dtype_name(dtype)}; bfloat16 is {ratio:.2f} times as fast here", flush=True)
    return device, dtype


def dtype_name(dtype: torch.dtype) -> str:
    """Return "float32" or "bfloat16"."""
    return str(dtype).removeprefix("torch.")
