"""The layers that training puts into a network: dropout by streams, batch normalisation, and their conversion."""

import math

import pytest
import torch
from torch import nn

from asr_kd.models.dnn import DNN
from asr_kd.train.layers import (
    BatchNorm,
    DropoutMasks,
    MaskPool,
    PooledDropout,
    ReluDropout,
    StreamMasks,
    convert_layers,
    pool_dropout,
)
from asr_kd.train.step import _Outputs


def network(layers: int, width: int, dropout: float = 0.0, batch_norm: bool = False) -> tuple[DNN, StreamMasks]:
    """A network of 5 senones, converted, and its dropout masks."""
    model, masks = DNN(40, 5, layers, width, dropout=dropout, batch_norm=batch_norm), StreamMasks(dropout)
    nn.init.normal_(model.output.weight)
    assert convert_layers(model, masks) is model
    return model.train(), masks


def test_conversion_keeps_parameters_and_buffers():
    plain = DNN(40, 5, 3, 16, dropout=0.5, batch_norm=True).eval()
    model = DNN(40, 5, 3, 16, dropout=0.5, batch_norm=True).eval()
    model.load_state_dict(plain.state_dict())
    before = dict(model.named_parameters()), dict(model.named_buffers())
    masks = StreamMasks(0.5)
    for _ in range(2):  # a second conversion changes the masks alone
        convert_layers(model, masks)
        for tensors, kept in zip((model.named_parameters(), model.named_buffers()), before, strict=True):
            found = dict(tensors)
            assert list(found) == list(kept) and all(found[name] is kept[name] for name in kept)
    assert all(isinstance(norm, BatchNorm) and not norm.training for norm in model.norms)
    assert all(isinstance(layer, ReluDropout) and layer.masks is masks for layer in model.activations)
    windows = torch.randn(4, 26 * 40)
    assert torch.equal(model.forward_windows(windows), plain.forward_windows(windows))


def test_dropout_keeps_the_mean_and_its_gradient():
    pool = MaskPool(0.25)
    pool.reseed(1)
    mask = pool.mask(torch.zeros(500, 400))
    assert mask.mean().item() == pytest.approx(1, abs=0.02)
    assert mask.unique().tolist() == pytest.approx([0, 4 / 3])
    model, masks = network(2, 32, dropout=0.25)
    model.double()
    windows = torch.randn(8, 26 * 40, dtype=torch.float64)

    def run(weight):
        masks.reseed(3)
        return (
            torch.func.functional_call(_Outputs(model), {"inner.hidden.0.weight": weight}, (windows, None)).pow(2).sum()
        )

    weight = model.hidden[0].weight.detach().clone().requires_grad_()
    run(weight).backward()
    step = torch.zeros_like(weight)
    step[3, 7] = 1e-6
    slope = (run(weight + step) - run(weight - step)) / 2e-6
    assert weight.grad[3, 7].item() == pytest.approx(slope.item(), rel=1e-4)


def test_masks_of_a_stream_do_not_depend_on_the_others():
    def rows(streams):
        masks = StreamMasks(0.5)
        masks.reseed(7)
        masks.streams = streams
        drawn = torch.cat([masks.mask(torch.zeros(sum(streams.values()), 64)) for _ in range(3)], 1)
        return dict(zip(streams, drawn.split(list(streams.values())), strict=True))

    together = rows({0: 5, 1: 8, 2: 3})
    for stream, count in ((0, 5), (1, 8), (2, 3)):
        assert torch.equal(rows({stream: count})[stream], together[stream])
    assert not torch.equal(together[0][:3], together[2])


def test_batch_norm_learns_statistics_and_leaves_small_batches_to_them():
    model, _ = network(1, 16, batch_norm=True)
    windows = 3 + 2 * torch.randn(4000, 26 * 40)
    for batch in windows.split(100):
        model.forward_windows(batch)
    running = model.norms[0].running_mean.clone()
    few = model.forward_windows(windows[:8])
    assert torch.equal(model.norms[0].running_mean, running)
    torch.testing.assert_close(few, model.eval().forward_windows(windows[:8]))
    values = model.norms[0](model.hidden[0](windows))
    torch.testing.assert_close(values.mean(0), torch.zeros(16), atol=0.1, rtol=0)
    torch.testing.assert_close(values.std(0), torch.ones(16), atol=0.1, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_pooled_dropout_keeps_units_in_proportion(p, dtype):
    network = nn.Sequential(nn.Linear(511, 511, bias=False), nn.Dropout(p)).to(dtype)
    nn.init.eye_(network[0].weight)
    masks = DropoutMasks()
    pool_dropout(network, masks)
    values = torch.ones(301, 511, dtype=dtype, requires_grad=True)
    masks.reseed(1)
    dropped, other = network(values), network(values)
    dropped.float().sum().backward()
    assert torch.equal(values.grad, dropped)
    assert abs((dropped == 0).float().mean().item() - p) < 4 * math.sqrt(p * (1 - p) / values.numel() + 1e-9)
    if p:
        assert dropped.max().item() == pytest.approx(1 / (1 - p), rel=5e-3)
        assert not torch.equal(dropped, other)
    masks.reseed(1)
    assert torch.equal(network(values), dropped)
    assert torch.equal(network.eval()(values), values)


def test_dropout_of_other_classes_stays():
    class Own(nn.Dropout):
        """A user's own kind of dropout."""

    network = nn.ModuleDict({"own": Own(0.5), "plain": nn.Dropout(0.5), "never": nn.Dropout(0.0)})
    before = dict(network.items())
    for masks in (DropoutMasks(), DropoutMasks()):  # a second time the masks are exchanged
        pool_dropout(network, masks)
        assert network["own"] is before["own"] and network["never"] is before["never"]
        assert isinstance(network["plain"], PooledDropout) and network["plain"].masks is masks
