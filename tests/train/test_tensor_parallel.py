"""A network split over two processes equals the whole one: logits, losses, gradients, and weights after updates."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional as F

from asr_kd.losses import CompactTargets, frame_kd_loss
from asr_kd.losses.tensor_parallel import sharded_argmax, sharded_cross_entropy, sharded_kd_loss
from asr_kd.models.dnn import DNN
from asr_kd.train.layers import StreamMasks, convert_layers
from asr_kd.train.tensor_parallel import ShardedMasks, parallelize

FRAMES, CLASSES = 24, 13  # an odd number, so that the processes have different shares


def forms(seed: int) -> dict[str, torch.Tensor | CompactTargets]:
    generator = torch.Generator().manual_seed(seed)
    dense = (2 * torch.randn(FRAMES, CLASSES, generator=generator)).softmax(-1)
    prior = torch.rand(CLASSES, generator=generator)
    compact = {
        tail: CompactTargets.top(dense, 4, tail, prior / prior.sum() if tail == "prior" else None)
        for tail in ("none", "even", "prior", "bucket")
    }
    return {"dense": dense, "every class": CompactTargets.top(dense, CLASSES, "bucket"), **compact}


def network(layers: int) -> DNN:
    torch.manual_seed(1)
    model = DNN(3, CLASSES, layers, 8, left=2, right=1, dropout=0.25)
    torch.nn.init.normal_(model.output.weight)
    return model.double().train()


def train(model: DNN, masks: StreamMasks, loss_of, updates: int = 3) -> list[float]:
    """Return the losses of a few updates."""
    convert_layers(model, masks)
    adam = torch.optim.AdamW(model.parameters())
    masks.reseed(2)
    losses = []
    for update in range(updates):
        generator = torch.Generator().manual_seed(10 + update)
        windows = torch.randn(FRAMES, 12, generator=generator, dtype=torch.float64)
        labels = torch.randint(CLASSES, (FRAMES,), generator=generator)
        labels[3] = -100
        loss = loss_of(model.forward_windows(windows), labels)
        adam.zero_grad()
        loss.total.backward()
        adam.step()
        losses += [float(part.detach()) for part in loss]
    return losses


def scores_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits whose highest value is in both halves, or twice in one, and labels."""
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(FRAMES, CLASSES, generator=generator)
    logits[0, [3, 9]] = logits[1, [2, 4]] = logits[2, [8, 11]] = 9.0
    labels = torch.randint(CLASSES, (FRAMES,), generator=generator)
    labels[4] = -100
    return logits, labels


def exclusion() -> tuple[torch.Tensor, list[torch.Tensor | CompactTargets], torch.Tensor]:
    """Return logits, soft targets and labels where each half has a class that does not exist."""
    logits, labels = scores_and_labels()
    logits[:, [5, 12]] = -torch.inf
    dense = (logits / 3).softmax(-1)
    return logits, [dense, CompactTargets.top(dense, 4, "none"), CompactTargets.top(dense, 4, "bucket")], labels % 5


def process(rank: int, folder: str, layers: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    store = dist.FileStore(f"{folder}/store", 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    for name, soft in forms(0).items():
        model = network(layers)
        shard = parallelize(model, init_device_mesh("cpu", (2,)))

        def loss_of(logits, labels, soft=soft, first=shard.first):
            return sharded_kd_loss(logits, first, CLASSES, soft, labels, temperature=2.0, hard_weight=0.3)

        losses = train(model, ShardedMasks(0.25, 8, shard.units), loss_of)
        weights = {name: value.full_tensor() for name, value in model.state_dict().items()}
        if rank == 0:
            torch.save((losses, weights), f"{folder}/{name}.pt")
    logits, labels = scores_and_labels()
    own, first = (logits[:, :7], 0) if rank == 0 else (logits[:, 7:], 7)
    torch.save((sharded_argmax(own, first), sharded_cross_entropy(own, first, labels)), f"{folder}/{rank}.pt")
    logits, targets, labels = exclusion()
    own = logits[:, first : first + own.shape[1]]
    torch.save(
        [list(sharded_kd_loss(own, first, CLASSES, soft, labels)) for soft in targets], f"{folder}/{rank}-some.pt"
    )
    dist.destroy_process_group()


@pytest.mark.parametrize("layers", [2, 3])
def test_a_split_network_equals_the_whole_one(layers: int, tmp_path: Path) -> None:
    mp.spawn(process, (str(tmp_path), layers), nprocs=2)
    for name, soft in forms(0).items():
        model = network(layers)

        def loss_of(logits, labels, soft=soft):
            return frame_kd_loss(logits, soft, labels, temperature=2.0, hard_weight=0.3)

        losses = train(model, StreamMasks(0.25), loss_of)
        found, weights = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert found == pytest.approx(losses, rel=1e-9, abs=1e-9), name
        for key, value in model.state_dict().items():
            torch.testing.assert_close(weights[key], value, rtol=1e-7, atol=1e-9)
    logits, labels = scores_and_labels()
    for rank in range(2):
        best, entropies = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert best.tolist() == logits.numpy().argmax(1).tolist()
        torch.testing.assert_close(entropies, F.cross_entropy(logits, labels, reduction="none"))
        some, targets, fewer = exclusion()
        for losses, soft in zip(torch.load(tmp_path / f"{rank}-some.pt"), targets, strict=True):
            torch.testing.assert_close(losses, list(frame_kd_loss(some, soft, fewer)))


def test_what_cannot_be_split_is_refused() -> None:
    class Mesh:
        def size(self) -> int:
            return 3

        def get_local_rank(self) -> int:
            return 0

    with pytest.raises(ValueError, match="3 devices cannot share 8 units"):
        parallelize(network(2), Mesh())  # type: ignore[arg-type]
