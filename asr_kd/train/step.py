"""One update of a network: forward, loss, backward, optimiser; on one device, or together with other processes."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from asr_kd.common import distributed
from asr_kd.losses import CompactTargets, KDLoss, frame_kd_loss
from asr_kd.losses.frames import UNLABELLED
from asr_kd.models.dnn import AcousticModel
from asr_kd.train.batches import Batch
from asr_kd.train.layers import BatchNorm, StreamMasks, convert_layers

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h


class Step:
    """One update: forward, loss, backward, optimiser; of all processes that train the network together.

    Args:
        model: on its device.
        temperature: T of the soft targets, for batches that have some.
        hard_weight: weight of the hard targets beside soft ones.
        dtype: of the matrix products; the weights stay float32.
        weight_decay: AdamW's.
    """

    def __init__(
        self, model: AcousticModel, temperature: float, hard_weight: float, dtype: torch.dtype, weight_decay: float
    ) -> None:
        self.model, self.temperature, self.hard_weight, self.dtype = model, temperature, hard_weight, dtype
        self.masks = self.dropout_masks()
        convert_layers(model, self.masks)
        self.norms = [layer for layer in model.modules() if isinstance(layer, BatchNorm)]
        self.optimizer = torch.optim.AdamW(model.parameters(), weight_decay=weight_decay, fused=True)
        self.network: Callable[[Tensor], Tensor] = self.together(model)
        if next(model.parameters()).device.type == "cpu":
            _keep_freed_memory()

    def __call__(self, batch: Batch, learning_rate: float) -> dict[str, Tensor]:
        """Update the weights.

        Returns:
            loss; correct and labelled, shares of frames; with soft targets soft, hard and kl, means over this process's
            part of the batch.
        """
        self.masks.streams = batch.streams
        for norm in self.norms:
            norm.batch_size = batch.of_all
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with torch.autocast(batch.windows.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.network(batch.windows)
        logits = logits.float()  # once, for the loss and the accuracy
        parts = self.loss(logits, batch)
        self.optimizer.zero_grad(set_to_none=True)
        # The processes' gradients are averaged, so each loss counts by its share of the batch.
        weight = self.sharers * len(batch.labels) / batch.of_all if batch.of_all else 1.0
        (parts["loss"] if weight == 1.0 else weight * parts["loss"]).backward()
        self.optimizer.step()
        parts["correct"] = (self.best(logits.detach()) == batch.labels).float().mean()
        parts["labelled"] = (batch.labels != UNLABELLED).float().mean()
        return {name: value.detach() for name, value in parts.items()}

    def loss(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The loss to minimise, and its parts; logits (B, num_pdfs) in float32."""
        if batch.soft is None:
            return {"loss": self.cross_entropy(logits, batch.labels)}
        kd = self.kd(logits, batch.soft, batch.labels, temperature=self.temperature, hard_weight=self.hard_weight)
        return {"loss": kd.total, "soft": kd.soft, "hard": kd.hard, "kl": kd.kl}

    def dropout_masks(self) -> StreamMasks:
        """Return the dropout masks of all layers."""
        return StreamMasks(self.model.shape.dropout)

    def together(self, model: AcousticModel) -> Callable[[Tensor], Tensor]:
        """What makes logits of windows: of several processes each has the whole network and its share of the frames."""
        self.sharers = distributed.rank().size
        if self.sharers == 1:
            return model
        # Statistics of batch norm are of all processes already; gradients need no copy beside those that are exchanged.
        return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def kd(
        self, logits: Tensor, soft: Tensor | CompactTargets, labels: Tensor | None = None, **settings: Any
    ) -> KDLoss:
        """``frame_kd_loss``."""
        return frame_kd_loss(logits, soft, labels, **settings)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """With the labels, nats, mean over the frames that have one."""
        return F.cross_entropy(logits, labels, ignore_index=UNLABELLED)

    def best(self, logits: Tensor) -> Tensor:
        """(N,) the senone with the highest logit, the first of several."""
        if logits.device.type != "cpu":
            return logits.argmax(1)
        return torch.from_numpy(logits.numpy().argmax(1))  # ten times as fast as torch's

    def whole(self, tensor: Tensor) -> Tensor:
        """A weight, or a moment of one, put together from all processes, which must all ask."""
        return tensor

    def part(self, tensor: Tensor, weight: Tensor) -> Tensor:
        """What this process has of a whole weight or moment."""
        return tensor


def _keep_freed_memory() -> None:
    """Let the C library keep what an update frees for the next one.

    It hands large pieces back to the kernel, which clears their pages before it lends them again: a fifth of an update
    of the paper's network.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)
