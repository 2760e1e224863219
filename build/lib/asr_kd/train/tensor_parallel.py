"""Tensor parallelism: a network whose weights are split over devices, because it is too large for one (section 5).

Hidden layers alternate: the first is split by its units, the next by its inputs, so that two layers need one sum over
the devices.  The output layer is split by senone, and its loss is ``sharded_kd_loss``.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from asr_kd.losses import CompactTargets, KDLoss
from asr_kd.losses.frames import UNLABELLED
from asr_kd.losses.tensor_parallel import sharded_argmax, sharded_cross_entropy, sharded_kd_loss
from asr_kd.models.dnn import DNN
from asr_kd.models.network import AcousticModel, Chunks, outputs
from asr_kd.train.layers import StreamMasks
from asr_kd.train.step import Step


@dataclass(frozen=True)
class Shard:
    """One device's share of a split network.

    Attributes:
        first: first senone of its logits.
        units: columns of a split hidden layer that it has.
    """

    first: int
    units: slice


class ShardedMasks(StreamMasks):
    """Dropout masks of layers whose units are split: a device takes its columns of the mask of the whole layer.

    Args:
        width: units of a whole layer.
        units: columns of this device.
    """

    def __init__(self, dropout: float, width: int, units: slice) -> None:
        super().__init__(dropout)
        self.width, self.units = width, units

    def mask(self, like: Tensor) -> Tensor:
        if like.shape[1] == self.width:
            return super().mask(like)
        return super().mask(like.new_empty(len(like), self.width))[:, self.units]


class _Copy(nn.Module):
    """Copies the output of a split layer: it is a view, which ``ReluDropout`` may not overwrite."""

    def forward(self, values: Tensor) -> Tensor:
        return values.clone()


def parallelize(model: DNN, mesh: DeviceMesh) -> Shard:
    """Split a network, the same in every process, over the devices of a one-dimensional mesh, in place.

    Its logits are then those of the device's own senones.  For dropout, convert the layers with ``ShardedMasks`` and
    the same seed on all devices, as ``TensorParallelStep`` does.

    Raises:
        ValueError: the width is not a multiple of the number of devices, there are fewer senones than devices, or the
            network has batch norm.
    """
    devices, rank = mesh.size(), mesh.get_local_rank()
    if model.width % devices or model.num_senones < devices:
        raise ValueError(f"{devices} devices cannot share {model.width} units and {model.num_senones} senones")
    if model.batch_norm:
        raise ValueError("a network with batch norm cannot be split")
    styles: dict[str, ParallelStyle] = {"output": ColwiseParallel()}
    for number in range(model.layers):
        if number % 2:
            styles[f"hidden.{number}"] = RowwiseParallel()
        elif number + 1 < model.layers:
            styles[f"hidden.{number}"] = ColwiseParallel()
        else:  # the output layer needs all units on every device
            styles[f"hidden.{number}"] = ColwiseParallel(output_layouts=Replicate())
    parallelize_module(model, mesh, styles)
    model.norms = nn.ModuleList(_Copy() for _ in model.norms)
    units = model.width // devices
    first = min(model.num_senones, rank * -(-model.num_senones // devices))  # torch gives the last devices what is left
    return Shard(first, slice(rank * units, (rank + 1) * units))


class TensorParallelStep(Step):
    """One update of a network that is split over the processes: each has a share of the weights, and all frames.

    Args:
        model: after ``parallelize``.
        shard: the share of this process.
        others: see ``Step``.
    """

    def __init__(self, model: DNN, shard: Shard, *others: Any) -> None:
        self.shard, self.dnn = shard, model
        super().__init__(cast(AcousticModel, model), *others)

    def dropout_masks(self) -> StreamMasks:
        return ShardedMasks(self.dnn.dropout, self.dnn.width, self.shard.units)

    def data_parallel(self) -> Callable[[Tensor, Chunks | None], Tensor]:
        return functools.partial(outputs, self.model)

    def kd_loss(self, logits: Tensor, soft: Tensor | CompactTargets, labels: Tensor, **settings: Any) -> KDLoss:
        return sharded_kd_loss(logits, self.shard.first, self.dnn.num_senones, soft, labels, **settings)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return sharded_cross_entropy(logits, self.shard.first, labels).sum() / (labels != UNLABELLED).sum()

    def argmax(self, logits: Tensor) -> Tensor:
        return sharded_argmax(logits, self.shard.first)

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

    def scatter(self, tensor: Tensor, weight: Tensor) -> Tensor:
        if not isinstance(weight, DTensor) or tensor.shape != weight.shape:
            return tensor
        return distribute_tensor(tensor, weight.device_mesh, weight.placements)
