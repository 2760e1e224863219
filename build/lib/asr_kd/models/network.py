"""Networks by name: what is asked of one, how model.json describes it, and how it is built.

A network is an ``nn.Module`` built as ``Class(feature_dim, num_senones, **args)``, with

- ``forward(features (B, T, F), lengths (B,)) -> logits (B, T', C), lengths (B,)``, where what follows ``lengths`` in
  ``features`` is quiet, as what surrounds a recording is;
- ``left``, ``right``: frames of context that an output needs; None: no bound.  ``right`` bounds the latency;
- ``subsampling``, T / T' (default 1): outputs are repeated so that each frame has one;
- ``segment`` (default 1): frames that are computed together.  Their context is counted from the edges of the segment,
  ``left`` is a multiple of it, and chunks of an utterance begin where segments do.

A window classifier, as the paper's, has in addition ``forward_windows (N, (left + 1 + right) · F) -> (N, C)``: it is
trained on shuffled frames, all others on chunks of utterances.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.features.normalise import QUIET

#: Networks by their short names.
NETWORKS = {
    "dnn": "asr_kd.models.dnn:DNN",
    "tdnn": "asr_kd.models.tdnn:TDNN",
    "tdnnf": "asr_kd.models.tdnn:TDNNF",
    "gru": "asr_kd.models.recurrent:GRU",
    "conformer": "asr_kd.models.attention:Conformer",
    "emformer": "asr_kd.models.attention:Emformer",
}


@dataclasses.dataclass(frozen=True)
class Network:
    """All that is needed to build a network.

    Attributes:
        name: class path, package.module:Class.
        feature_dim: features per frame.
        num_senones: outputs per frame.
        args: further arguments of the class.
        delay: frames by which the outputs of a causal network come later than their frame (``Delayed``).
    """

    name: str
    feature_dim: int
    num_senones: int
    args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    delay: int = 0

    def build(self) -> AcousticModel:
        """The network with random weights; its attribute ``network`` is this description.

        Raises:
            UserError: there is no such class, it cannot be built with these arguments, or it lacks something.
        """
        network: Any = self._construct(network_class(self.name))
        if missing := [name for name in ("left", "right") if not hasattr(network, name)]:
            raise UserError(f"{self.name} has no attribute {missing[0]}: set its frames of context (None: no bound)")
        left, segment = network.left, segment_of(network)
        if left is not None and left % segment:
            raise UserError(f"{self.name} needs {left} frames before a segment of {segment}: make it a multiple")
        if self.delay:
            if is_window_classifier(network):
                raise UserError(f"--delay is for networks that are trained on chunks: give {self.name} a larger right")
            network = Delayed(network, self.delay)
        network.network = self
        return cast(AcousticModel, network)

    def _construct(self, cls: type[nn.Module]) -> nn.Module:
        try:
            inspect.signature(cls).bind(self.feature_dim, self.num_senones, **self.args)
        except TypeError as error:
            raise UserError(
                f"{self.name} cannot be built with {self.feature_dim} features, {self.num_senones} senones and "
                f"{dict(self.args)} ({error}): correct --network-args"
            ) from None
        try:
            return cls(self.feature_dim, self.num_senones, **self.args)
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise UserError(f"{self.name} refuses {dict(self.args)} ({error}): correct --network-args") from None

    def with_args(self, **args: Any) -> Network:
        """This description with other arguments, where the class has them."""
        known = inspect.signature(network_class(self.name)).parameters
        return dataclasses.replace(self, args={**self.args, **{k: v for k, v in args.items() if k in known}})

    def num_parameters(self) -> int:
        """The number of parameters, without allocating them."""
        with torch.device("meta"):
            return num_parameters(self.build())

    def to_json(self) -> dict[str, Any]:
        """What ``read_network`` reads back."""
        return {**dataclasses.asdict(self), "args": dict(self.args)}


class AcousticModel(nn.Module):
    """The type of the networks that ``Network`` builds, for annotations alone: each is of a class of its own."""

    network: Network
    left: int | None
    right: int | None

    def forward_windows(self, windows: Tensor) -> Tensor:
        """Window classifiers alone have this."""
        raise NotImplementedError


def network_class(name: str) -> type[nn.Module]:
    """The class that a short name or a class path names.

    Raises:
        UserError: it names none.
    """
    module, _, attribute = NETWORKS.get(name, name).partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(
            f"there is no network {name!r} ({error}): give {', '.join(NETWORKS)}, or package.module:Class with the "
            "package's folder in PYTHONPATH"
        ) from None
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise UserError(f"{name} is no subclass of torch.nn.Module: give the class of a network")
    return cls


def read_network(folder: Path) -> Network:
    """The description of the network in a folder.

    Raises:
        UserError: model.json is missing or damaged, or has keys of another version.
    """
    path = folder / "model.json"
    try:
        described = read_json(path)["network"]
        network = Network(**described)
        if not isinstance(network.num_senones, int) or not isinstance(network.args, dict):
            raise TypeError("its network is no network")
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged or of another version ({error}): train the network again") from None
    return network


def is_window_classifier(network: nn.Module) -> bool:
    """Whether a network is trained on shuffled frames, with a window each."""
    return hasattr(network, "forward_windows")


def window_of(network: AcousticModel) -> tuple[int, int]:
    """Frames before and after the labelled one in the windows of a window classifier."""
    assert network.left is not None and network.right is not None
    return network.left, network.right


def segment_of(network: nn.Module) -> int:
    """Frames that a network computes together."""
    return int(getattr(network, "segment", 1))


def context_of(network: AcousticModel, unbounded: int) -> tuple[int, int]:
    """Frames to give a network before and after a part of an utterance, ``unbounded`` of them where it has no bound."""
    segment = segment_of(network)
    left = -(-unbounded // segment) * segment if network.left is None else network.left
    return left, unbounded if network.right is None else network.right


def num_parameters(network: nn.Module) -> int:
    """The number of parameters of a network."""
    return sum(parameter.numel() for parameter in network.parameters())


def frame_logits(network: nn.Module, features: Tensor, lengths: Tensor) -> Tensor:
    """The logits of every frame, (B, T, F) → (B, T, C): those of a network with subsampling are repeated."""
    logits, _ = network(features, lengths)
    factor = int(getattr(network, "subsampling", 1))
    if factor > 1:
        logits = logits.repeat_interleave(factor, 1)
    missing = features.shape[1] - logits.shape[1]
    if missing > 0:  # the last outputs of networks that round down
        logits = torch.cat([logits, logits[:, -1:].expand(-1, missing, -1)], 1)
    return logits[:, : features.shape[1]]


def fill_quiet(features: Tensor, lengths: Tensor, left: int = 0, right: int = 0) -> Tensor:
    """``features`` (B, T, F) quiet after ``lengths``, with ``left`` and ``right`` more quiet frames around them."""
    beyond = torch.arange(features.shape[1], device=features.device) >= lengths.to(features.device)[:, None]
    return F.pad(features.masked_fill(beyond[..., None], QUIET), (0, 0, left, right), value=QUIET)


class Delayed(nn.Module):
    """A network whose output for a frame is the one that it gives ``delay`` frames later.

    So a causal network hears a little of what follows.  Latency grows by as much.
    """

    def __init__(self, inner: nn.Module, delay: int) -> None:
        super().__init__()
        self.inner, self.delay = inner, delay
        self.left, self.segment = inner.left, segment_of(inner)
        self.right = None if inner.right is None else int(inner.right) + delay  # type: ignore[arg-type]

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        later = frame_logits(self.inner, fill_quiet(features, lengths, 0, self.delay), lengths + self.delay)
        return later[:, self.delay :], lengths


@dataclasses.dataclass(frozen=True)
class Chunks:
    """Where the examples of a batch of chunks (n, T, F) are.

    Attributes:
        lengths: (n,) frames of each chunk, with its context; the rest is padding.
        kept: (B,) the frames of the batch that are examples, among n · T.
    """

    lengths: Tensor
    kept: Tensor


def select(inputs: Tensor, chunks: Chunks | None, examples: Tensor) -> tuple[Tensor, Chunks | None]:
    """Some of the examples of a batch, by a mask (B,) or indices, as ``outputs`` takes them."""
    if chunks is None:
        return inputs[examples], None
    return inputs, dataclasses.replace(chunks, kept=chunks.kept[examples])


def outputs(network: AcousticModel, inputs: Tensor, chunks: Chunks | None = None) -> Tensor:
    """The logits (B, C) of examples: windows (B, W), or the frames that ``chunks`` keeps of features (n, T, F)."""
    if chunks is None:
        return network.forward_windows(inputs)
    return frame_logits(network, inputs, chunks.lengths).flatten(0, 1)[chunks.kept]
