"""One wide network split over devices (the other parallelism of the paper's section 5: a model too large for one).

Hidden layers alternate: the units of one are split, then the inputs of the next, so that two layers need one sum over
the devices; the output layer is split by senone, and its loss is ``split_kd_loss``.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from asr_kd.models import AcousticModel, Masks


class _SplitMasks(Masks):
    """Of a layer whose units are split, each device's columns of what the whole layer would have."""

    def __init__(self, masks: Masks, width: int, part: slice) -> None:
        super().__init__(masks.dropout)
        self.width, self.part = width, part

    def mask(self, like: Tensor) -> Tensor:
        if like.shape[1] == self.width:
            return super().mask(like)
        return super().mask(like.new_empty(len(like), self.width))[:, self.part]


class _Copy(nn.Module):
    """What a split layer returns is a view, which the network may not rectify in place."""

    def forward(self, values: Tensor) -> Tensor:
        return values.clone()


def split(model: AcousticModel, mesh: DeviceMesh) -> int:
    """Split a network, the same in every process, over the devices of a one-dimensional mesh, in place.

    Its logits are those of the device's own senones from then on.

    Returns:
        The first of these.

    Raises:
        ValueError: a width that the devices cannot share evenly, fewer senones than devices, or batch norm.
    """
    devices, me, shape = mesh.size(), mesh.get_local_rank(), model.shape
    if shape.width % devices or shape.num_pdfs < devices:
        raise ValueError(f"{devices} devices cannot share {shape.width} units and {shape.num_pdfs} senones")
    if shape.batch_norm:
        raise ValueError("a network with batch norm cannot be split")
    styles: dict[str, ParallelStyle] = {"output": ColwiseParallel()}
    for number in range(shape.layers):
        if number % 2:
            styles[f"hidden.{number}"] = RowwiseParallel()
        elif number + 1 < shape.layers:
            styles[f"hidden.{number}"] = ColwiseParallel()
        else:  # nobody takes its units apart as they are: all get them
            styles[f"hidden.{number}"] = ColwiseParallel(output_layouts=Replicate())
    parallelize_module(model, mesh, styles)
    model.norms = nn.ModuleList(_Copy() for _ in model.norms)
    units = shape.width // devices
    model.masks = _SplitMasks(model.masks, shape.width, slice(me * units, (me + 1) * units))
    return min(shape.num_pdfs, me * -(-shape.num_pdfs // devices))  # as torch deals what does not divide


def whole(model: AcousticModel) -> dict[str, Tensor]:
    """The weights of the network put together again, in every process."""
    return {
        name: value.full_tensor() if isinstance(value, DTensor) else value.detach()
        for name, value in model.state_dict().items()
    }
