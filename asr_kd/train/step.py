"""One update of a network: forward, loss, backward, optimiser; by one process, or by several that share the batch."""

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
        model: on its device; gets the layers of ``asr_kd.train.layers``.
        temperature: T of the soft targets, for batches that have some.
        hard_weight: weight of the hard targets next to soft ones.
        dtype: of the matrix products; the weights stay float32.
        weight_decay: AdamW's.

    Attributes:
        masks: dropout masks of all layers.
        replicas: processes that have a copy of the network each and share the batch.
    """

    replicas = 1

    def __init__(
        self, model: AcousticModel, temperature: float, hard_weight: float, dtype: torch.dtype, weight_decay: float
    ) -> None:
        self.model, self.temperature, self.hard_weight, self.dtype = model, temperature, hard_weight, dtype
        self.masks = self.dropout_masks()
        convert_layers(model, self.masks)
        self.norms = [layer for layer in model.modules() if isinstance(layer, BatchNorm)]
        self.optimizer = torch.optim.AdamW(model.parameters(), weight_decay=weight_decay, fused=True)
        self.network: Callable[[Tensor], Tensor] = self.data_parallel()
        if next(model.parameters()).device.type == "cpu":
            _keep_freed_memory()

    def __call__(self, batch: Batch, learning_rate: float) -> dict[str, Tensor]:
        """Update the weights.

        Returns:
            loss; correct and labelled, fractions of the frames; with soft targets also soft, hard and kl.  All are
            means over this process's part of the batch.
        """
        self.masks.streams = batch.streams
        for norm in self.norms:
            norm.batch_size = batch.global_size
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with torch.autocast(batch.windows.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.network(batch.windows)
        logits = logits.float()  # once, for the loss and the accuracy
        values = self.loss(logits, batch)
        self.optimizer.zero_grad(set_to_none=True)
        # The gradients of the processes are averaged, so each loss is weighted by its share of the batch.
        weight = self.replicas * len(batch.labels) / batch.global_size if batch.global_size else 1.0
        (values["loss"] if weight == 1.0 else weight * values["loss"]).backward()
        self.optimizer.step()
        values["correct"] = (self.argmax(logits.detach()) == batch.labels).float().mean()
        values["labelled"] = (batch.labels != UNLABELLED).float().mean()
        return {name: value.detach() for name, value in values.items()}

    def loss(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the loss to minimise and its parts, from logits (B, num_pdfs) in float32."""
        if batch.soft is None:
            return {"loss": self.cross_entropy(logits, batch.labels)}
        kd = self.kd_loss(logits, batch.soft, batch.labels, temperature=self.temperature, hard_weight=self.hard_weight)
        return {"loss": kd.total, "soft": kd.soft, "hard": kd.hard, "kl": kd.kl}

    def dropout_masks(self) -> StreamMasks:
        """Return the dropout masks of all layers."""
        return StreamMasks(self.model.shape.dropout)

    def data_parallel(self) -> Callable[[Tensor], Tensor]:
        """Return the network, or several processes' copies of it that exchange gradients."""
        self.replicas = distributed.rank().size
        if self.replicas == 1:
            return self.model
        # Batch norm has the same statistics in all processes already.
        return DistributedDataParallel(self.model, broadcast_buffers=False, gradient_as_bucket_view=True)

    def kd_loss(self, logits: Tensor, soft: Tensor | CompactTargets, labels: Tensor, **settings: Any) -> KDLoss:
        """Return ``frame_kd_loss``."""
        return frame_kd_loss(logits, soft, labels, **settings)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with the labels in nats, the mean over the frames that have one."""
        return F.cross_entropy(logits, labels, ignore_index=UNLABELLED)

    def argmax(self, logits: Tensor) -> Tensor:
        """Return the senone with the highest logit, (N,); the first one of equals."""
        if logits.device.type != "cpu":
            return logits.argmax(1)
        return torch.from_numpy(logits.numpy().argmax(1))  # ten times as fast as torch's

    def gather(self, tensor: Tensor) -> Tensor:
        """Return a whole weight, or moment of one, from the shards of all processes, which must all call this."""
        return tensor

    def scatter(self, tensor: Tensor, weight: Tensor) -> Tensor:
        """Return this process's shard of a whole weight, or moment of ``weight``."""
        return tensor


def _keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next update.

    By default it returns large blocks to the kernel, which clears their pages before it hands them out again.  That
    took a fifth of an update of the paper's network.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)
