"""The device that networks run on, and the dtype of their matrix products, which is measured."""

import contextlib
import functools
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from asr_kd.common.errors import UserError
from asr_kd.common.storage import write_json

#: bfloat16 rounds more, so it has to be this much faster than float32 to be chosen.
MIN_SPEEDUP = 1.2
#: Rows of the products that are measured: a batch.
ROWS = 512
#: Inputs and outputs of a layer of the network's size, if no network is at hand.
SIZE = (512, 512)
#: Larger layers are as fast per operation, and would take seconds to measure.
MAX_SIZE = 1024
REPEATS = 7


def device_and_dtype(device: str, precision: str, size: tuple[int, int] = SIZE) -> tuple[str, torch.dtype]:
    """Return what ``--device`` (cpu, cuda, auto) and ``--precision`` (float32, bfloat16, auto) mean on this machine.

    Args:
        size: inputs and outputs of the layer that is measured for auto (``largest_layer``).

    Returns:
        The device, and the dtype of the matrix products; weights stay in float32.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    bfloat16 = precision == "bfloat16" or (precision == "auto" and speedup(device, size) >= MIN_SPEEDUP)
    return device, torch.bfloat16 if bfloat16 else torch.float32


def largest_layer(network: nn.Module) -> tuple[int, int]:
    """Return the inputs and outputs of the largest layer of a network, at most ``MAX_SIZE`` each."""
    shapes = [parameter.shape for parameter in network.parameters() if parameter.dim() == 2]
    outputs, inputs = max(shapes, key=lambda shape: shape.numel(), default=SIZE)
    return min(int(inputs), MAX_SIZE), min(int(outputs), MAX_SIZE)


@functools.cache
def speedup(device: str, size: tuple[int, int]) -> float:
    """Return how many times as fast the matrix products of a layer's update are in bfloat16 as in float32.

    They are measured, since what a processor announces does not tell: on an Intel Xeon with avx512_bf16 and without AMX
    products in bfloat16 take twice as long as in float32.  It is done once a machine: later processes find it in
    asr_kd/products.json in the user's cache folder, so that they compute in the same dtype.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    path = folder / "asr_kd" / "products.json"
    key = f"{_processor(device)}, torch {torch.__version__}, {torch.get_num_threads()} threads, {size[0]}×{size[1]}"
    known = _read(path).get(key)
    if isinstance(known, float):
        return known
    ratio = round(_measure(device, size), 3)
    if folder.is_absolute():  # a user may have no home
        with contextlib.suppress(OSError, UserError):  # without a cache it is measured again
            write_json(path, {**_read(path), key: ratio})  # read again: other processes may have measured meanwhile
    return ratio


def _read(path: Path) -> dict[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _processor(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    about = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return f"{about.get('model name', platform.processor())} {about.get('model', '')} {about.get('stepping', '')}"


def _measure(device: str, size: tuple[int, int]) -> float:
    runs = [_products(device, size, dtype) for dtype in (torch.float32, torch.bfloat16)]
    # They take turns, so that other work on the machine slows both; the fastest of each had least of it.
    seconds = [[_seconds(run, device) for run in runs] for _ in range(1 + REPEATS)][1:]
    single, half = (min(times) for times in zip(*seconds, strict=True))
    return single / half


def _products(device: str, size: tuple[int, int], dtype: torch.dtype) -> Callable[[], None]:
    """The products of an update: outputs, gradient of the weights, and gradient of the inputs."""
    inputs, weight, gradient = (
        torch.full(shape, 0.5, device=device, dtype=dtype) for shape in ((ROWS, size[0]), size[::-1], (ROWS, size[1]))
    )

    def run() -> None:
        inputs @ weight.T
        gradient.T @ inputs
        gradient @ weight

    return run


def _seconds(run: Callable[[], None], device: str) -> float:
    started = time.perf_counter()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - started
