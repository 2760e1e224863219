"""One update of a network: forward, loss, backward, optimiser; by one process, or by several that share the batch."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from asr_kd.common import distributed
from asr_kd.common.parallel import keep_freed_memory
from asr_kd.losses import CompactTargets, KDLoss, frame_kd_loss
from asr_kd.losses.frames import UNLABELLED
from asr_kd.models.dnn import DNN
from asr_kd.models.network import AcousticModel, Chunks, outputs
from asr_kd.train.batches import Batch
from asr_kd.train.layers import BatchNorm, DropoutMasks, StreamMasks, convert_layers, pool_dropout


class Step:
    """One update: forward, loss, backward, optimiser; of all processes that train the network together.

    Args:
        model: on its device; a ``DNN`` gets the layers of ``asr_kd.train.layers``.
        temperature: T of the soft targets, for batches that have some.
        hard_weight: weight of the hard targets next to soft ones.
        dtype: of the matrix products; the weights stay float32.
        weight_decay: AdamW's.
        clip: largest norm of the gradient; 0: no limit.

    Attributes:
        masks: dropout masks of all layers of a ``DNN``; None for other networks, which draw their own.
        replicas: processes that have a copy of the network each and share the batch.
    """

    replicas = 1

    def __init__(
        self, model: AcousticModel, temperature: float, hard_weight: float, dtype: torch.dtype, weight_decay: float,
        clip: float = 0.0,
    ) -> None:  # fmt: skip
        self.model, self.temperature, self.hard_weight, self.dtype = model, temperature, hard_weight, dtype
        self.clip = clip
        self.masks = self.dropout_masks()
        if self.masks is not None:
            convert_layers(model, self.masks)
        self.pooled = DropoutMasks()
        if self.masks is None and next(model.parameters()).is_cpu:
            pool_dropout(model, self.pooled)
        self.norms = [layer for layer in model.modules() if isinstance(layer, BatchNorm)]
        self.optimizer = torch.optim.AdamW(model.parameters(), weight_decay=weight_decay, fused=True)
        self.network: Callable[[Tensor, Chunks | None], Tensor] = self.data_parallel()
        self.constrain: Callable[[], None] | None = getattr(model, "constrain", None)
        if next(model.parameters()).device.type == "cpu":
            keep_freed_memory()

    def __call__(self, batch: Batch, learning_rate: float) -> dict[str, Tensor]:
        """Update the weights.

        Returns:
            loss; correct and labelled, fractions of the frames; with soft targets also soft, hard and kl.  All are
            means over this process's part of the batch.
        """
        if self.masks is not None:
            self.masks.streams = batch.streams
        for norm in self.norms:
            norm.batch_size = batch.global_size
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        with torch.autocast(batch.inputs.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.network(batch.inputs, batch.chunks)
        logits = logits.float()  # once, for the loss and the accuracy
        values = self.loss(logits, batch)
        self.optimizer.zero_grad(set_to_none=True)
        # The gradients of the processes are averaged, so each loss is weighted by its share of the batch.
        weight = self.replicas * len(batch.labels) / self._global_size(batch)
        (values["loss"] if weight == 1.0 else weight * values["loss"]).backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        if self.constrain is not None:
            self.constrain()
        values["correct"] = (self.argmax(logits.detach()) == batch.labels).float().mean()
        values["labelled"] = (batch.labels != UNLABELLED).float().mean()
        return {name: value.detach() for name, value in values.items()}

    def _global_size(self, batch: Batch) -> float:
        """Return the number of examples in the batch of all processes that have a copy of the network."""
        if self.replicas == 1:
            return len(batch.labels)
        if batch.global_size:
            return batch.global_size
        return distributed.all_reduce_sum(torch.tensor(float(len(batch.labels)), device=batch.labels.device)).item()

    def reseed(self, seed: int) -> None:
        """Let everything random in the network follow from ``seed``, as at the start of every epoch."""
        if self.masks is not None:
            self.masks.reseed(seed)
        else:
            own = distributed.rank().size * seed + distributed.rank().number
            torch.manual_seed(own)
            self.pooled.reseed(own)

    def loss(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the loss to minimise and its parts, from logits (B, num_pdfs) in float32."""
        if batch.soft is None:
            return {"loss": self.cross_entropy(logits, batch.labels)}
        kd = self.kd_loss(logits, batch.soft, batch.labels, temperature=self.temperature, hard_weight=self.hard_weight)
        return {"loss": kd.total, "soft": kd.soft, "hard": kd.hard, "kl": kd.kl}

    def dropout_masks(self) -> StreamMasks | None:
        """Return the dropout masks of all layers of a ``DNN``."""
        return StreamMasks(self.model.dropout) if isinstance(self.model, DNN) else None

    def data_parallel(self) -> Callable[[Tensor, Chunks | None], Tensor]:
        """Return the logits (B, C) as a function of inputs: the network's, or those of several processes' copies of it
        that exchange gradients."""
        self.replicas = distributed.rank().size
        if self.replicas == 1:
            return functools.partial(outputs, self.model)
        # Batch norm of a DNN has the same statistics in all processes already.
        return DistributedDataParallel(_Outputs(self.model), broadcast_buffers=False, gradient_as_bucket_view=True)

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


class _Outputs(nn.Module):
    """``outputs`` of a network, as a module."""

    def __init__(self, inner: AcousticModel) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: Tensor, chunks: Chunks | None) -> Tensor:
        return outputs(self.inner, inputs, chunks)
