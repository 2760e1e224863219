"""The paper's acoustic model: a deep ReLU network over a window of frames (section 4), and its smaller presets."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from asr_kd import ranks
from asr_kd.losses import Mean, average_distributions
from asr_kd.storage import UserError, read_json

#: name -> (hidden layers, units a layer)
PRESETS: dict[str, tuple[int, int]] = {
    "tiny": (2, 128),
    "quarter": (4, 192),
    "small": (4, 256),
    "medium": (4, 512),
    "large": (6, 1024),
    "paper": (8, 2560),
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """Everything needed to build a network.

    Attributes:
        layers, width: hidden layers and units in each.
        num_pdfs: senones, the size of the output layer.
        left, right: frames of context before and after the labelled one (20 and 5: the paper's 26 frames,
            of which the 21st is labelled).
        feature_dim: log-mel filterbanks a frame.
        dropout: share of hidden units dropped in training.
        batch_norm: normalise the input of every ReLU over the batch (Ioffe and Szegedy 2015).
    """

    layers: int
    width: int
    num_pdfs: int
    left: int = 20
    right: int = 5
    feature_dim: int = 40
    dropout: float = 0.2
    batch_norm: bool = False

    @property
    def window(self) -> int:
        return self.left + 1 + self.right


class _ReluDropout(torch.autograd.Function):
    """ReLU and dropout in one, in place: only the output is kept, which the next layer keeps anyway."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, mask: Tensor, scale: float) -> Tensor:
        output = inputs.relu_().mul_(mask)
        ctx.mark_dirty(output)
        ctx.save_for_backward(output)
        ctx.scale = scale
        return output

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (output,) = ctx.saved_tensors
        # torch.where took a fifth of a training step on the CPU: it is not vectorised for bfloat16.
        return torch.ops.aten.threshold_backward(gradient, output, 0).mul_(ctx.scale), None, None


class MaskPool:
    """Dropout masks as slices of one pool of random bits.

    Drawing fresh bits for every layer and batch took 30 % of an epoch on the CPU.  The pool is redrawn
    at every ``reseed`` (each epoch) and each mask starts at a random place in it.
    """

    SIZE = 1 << 22

    def __init__(self, dropout: float, stream: int = 0) -> None:
        self.dropout, self.stream = dropout, stream
        self.scale = 1.0 / (1.0 - dropout)
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        self.generator = np.random.default_rng([seed, 1, self.stream] if self.stream else [seed, 1])
        self.pool: Tensor | None = None

    def mask(self, like: Tensor) -> Tensor:
        """A mask of 0 and 1/(1 − dropout), shaped and typed as ``like``."""
        size = like.numel()
        if self.pool is None or self.pool.dtype != like.dtype or self.pool.numel() < 2 * size:
            kept = self.generator.random(max(self.SIZE, 2 * size), dtype=np.float32) >= self.dropout
            self.pool = torch.from_numpy(kept).to(device=like.device, dtype=like.dtype).mul_(self.scale)
        start = int(self.generator.integers(self.pool.numel() - size))
        return self.pool[start : start + size].view(like.shape)


class Masks:
    """Dropout masks of batches that come from several streams: a stream's do not depend on who else reads which.

    Attributes:
        streams: examples of each stream in the next batch, which follow one another; empty: all are of one.
    """

    def __init__(self, dropout: float) -> None:
        self.dropout, self.scale = dropout, 1.0 / (1.0 - dropout)
        self.streams: Mapping[int, int] = {}
        self.reseed(0)

    def reseed(self, seed: int) -> None:
        self.seed = seed
        self.pools: dict[int, MaskPool] = {}

    def mask(self, like: Tensor) -> Tensor:
        """See ``MaskPool.mask``."""
        streams = self.streams or {0: len(like)}
        parts = [self._pool(s).mask(part) for s, part in zip(streams, like.split(list(streams.values())), strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _pool(self, stream: int) -> MaskPool:
        if stream not in self.pools:
            self.pools[stream] = MaskPool(self.dropout, stream)
            self.pools[stream].reseed(self.seed)
        return self.pools[stream]


class _BatchNorm(nn.BatchNorm1d):
    """Normalises over the batch of all processes; batches too small for statistics by the running ones.

    Attributes:
        examples: in the batch of all processes; 0: this process's are all.
    """

    FEWEST = 32
    examples = 0

    def forward(self, values: Tensor) -> Tensor:
        if not self.training or (self.examples or len(values)) < self.FEWEST:
            return F.batch_norm(values, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(values) if ranks.rank().size == 1 else self._over_all(values)

    def _over_all(self, values: Tensor) -> Tensor:
        # Every process's count, mean and sum of squares around it, in its own row: a sum gathers them.
        me, wide = ranks.rank(), values.float()
        mine = wide.mean(0)
        row = torch.stack([torch.full_like(mine, len(wide)), mine, (wide - mine).square().sum(0)])
        rows = F.pad(row[None], (0, 0, 0, 0, me.number, me.size - 1 - me.number))
        count, mean, squares = ranks.summed(rows).unbind(1)
        total = count.sum(0)
        centre = (count * mean).sum(0) / total
        spread = (squares + count * (mean - centre).square()).sum(0) / total
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(centre, self.momentum)
            self.running_var.lerp_(spread * total / (total - 1), self.momentum)
        return ((wide - centre) * (self.weight * (spread + self.eps).rsqrt()) + self.bias).to(values.dtype)


class AcousticModel(nn.Module):
    """Windows of log-mel frames (N, window × feature_dim) to senone logits (N, num_pdfs)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        sizes = [shape.window * shape.feature_dim] + [shape.width] * shape.layers
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
        norm = _BatchNorm if shape.batch_norm else nn.Identity
        self.norms = nn.ModuleList(norm(shape.width) for _ in self.hidden)
        self.output = nn.Linear(shape.width, shape.num_pdfs)
        self.masks = Masks(shape.dropout)
        for layer in self.hidden:
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, windows: Tensor) -> Tensor:
        values = windows
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            values = norm(layer(values))
            if self.training and self.masks.dropout > 0:
                values = _ReluDropout.apply(values, self.masks.mask(values), self.masks.scale)
            else:
                values = torch.relu(values)
        return self.output(values)

    def expect(self, streams: Mapping[int, int], examples: int) -> None:
        """Tell what the next batch to train on consists of: examples of each stream here, and those of all processes
        together (asr_kd.frames.Batch)."""
        self.masks.streams = streams
        for norm in self.norms:
            norm.examples = examples  # type: ignore[assignment]

    def products_in(self, dtype: torch.dtype) -> AcousticModel:
        """Convert the weights of the matrix products, once for all; inputs must have this dtype then, logits will."""
        for layer in (*self.hidden, self.output):
            layer.to(dtype)
        return self

    def parameters_count(self) -> int:
        return sum(p.numel() for p in self.parameters())


def parameters_of(shape: Shape) -> int:
    """How many parameters a network of this shape would have; takes no memory."""
    with torch.device("meta"):
        return AcousticModel(shape).parameters_count()


def device_and_dtype(device: str, precision: str) -> tuple[str, torch.dtype]:
    """What the flags ``--device`` (cpu, cuda, auto) and ``--precision`` (float32, bfloat16, auto) mean on this machine.

    Returns:
        device, and the type of the matrix products; the weights stay float32.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    bfloat16 = precision == "bfloat16" or (precision == "auto" and fast_bfloat16(device))
    return device, torch.bfloat16 if bfloat16 else torch.float32


@torch.no_grad()
def scores(model: AcousticModel, windows: Tensor, dtype: torch.dtype) -> Tensor:
    """Logits (N, num_pdfs) float32 of ``windows``, with matrix products in ``dtype``."""
    with torch.autocast(windows.device.type, dtype, enabled=dtype != torch.float32):
        return model(windows).float()


def context_windows(features: Tensor, left: int, right: int) -> Tensor:
    """Every frame's window, without copying: (T, D) → (T, (left + 1 + right) · D), a strided view of the
    utterance padded by repeating its first and last frame."""
    dim = features.shape[1]
    padded = torch.cat([features[:1].expand(left, dim), features, features[-1:].expand(right, dim)])
    return strided_windows(padded, left + 1 + right)


def strided_windows(rows: Tensor, width: int) -> Tensor:
    """All windows of ``width`` rows, without a copy: (N, D) to (N − width + 1, width × D)."""
    return rows.as_strided((len(rows) - width + 1, width * rows.shape[1]), (rows.shape[1], 1))


def load_model(folder: Path | str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> AcousticModel:
    """The best checkpoint in a model folder, in evaluation mode.

    Args:
        dtype: see ``AcousticModel.products_in``.

    Raises:
        UserError: the folder holds no model, or a damaged one.
    """
    folder = Path(folder)
    shape = Shape(**read_json(folder / "model.json")["shape"])
    model = AcousticModel(shape)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    model.load_state_dict(load_tensors(folder / "model.safetensors", shapes))
    return model.products_in(dtype).to(device).eval()


def continued(folder: Path, shape: Shape) -> AcousticModel:
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


def fast_bfloat16(device: str) -> bool:
    """Whether matrix products in bfloat16 are faster than in float32 on this device."""
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


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
