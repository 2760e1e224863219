"""One update on whole utterances: a criterion of their lattices, smoothed by the loss of their frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asr_kd.common.storage import read_json
from asr_kd.lattices.criteria import SequenceCriterion
from asr_kd.lattices.store import STORE
from asr_kd.models.checkpoints import load_log_prior
from asr_kd.train.batches import Batch
from asr_kd.train.config import Config
from asr_kd.train.step import Step


class SequenceStep(Step):
    """One update by (1 − ``smoothing``) · criterion + ``smoothing`` · frame loss.

    The frame loss, that of ``Step``, keeps the network from what suits the lattices and nothing else (F-smoothing; Su,
    Li, Yu, Seide 2013, "Error back propagation for sequence training of context-dependent deep networks").  Batch norm
    keeps its statistics, since those of a few utterances are those of a few speakers.

    Args:
        criterion: of the lattices.
        smoothing: weight of the frame loss.
        settings: see ``Step``.
    """

    def __init__(self, criterion: SequenceCriterion, smoothing: float, *settings: Any) -> None:
        super().__init__(*settings)
        self.criterion, self.smoothing = criterion, smoothing
        self.frozen = [module for module in self.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def __call__(self, batch: Batch, learning_rate: float) -> dict[str, Tensor]:
        for norm in self.frozen:
            norm.eval()
        return super().__call__(batch, learning_rate)

    def loss(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the loss to minimise and its parts, the criterion among them."""
        assert batch.lattices is not None and batch.quiet is not None
        loss, criterion = self.criterion(logits, batch.labels, batch.quiet, batch.lattices)
        if not self.smoothing:
            return {"loss": loss, "criterion": criterion}
        values = super().loss(logits, batch)
        total = (1 - self.smoothing) * loss + self.smoothing * values["loss"]
        return {**values, "loss": total, "criterion": criterion}

    @torch.no_grad()
    def criterion_of(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the criterion, the mean over the frames of a batch."""
        assert batch.lattices is not None and batch.quiet is not None
        return self.criterion(logits, batch.labels, batch.quiet, batch.lattices)[1]


def sequence_criterion(config: Config, device: str) -> SequenceCriterion:
    """Return the criterion that the flags describe, with the acoustic scale of the lattices' decoding."""
    assert config.lattices is not None and config.start_from is not None
    return SequenceCriterion(
        config.criterion,
        float(read_json(Path(config.lattices) / STORE)["acoustic_scale"]),
        torch.from_numpy(load_log_prior(config.start_from)).to(device),
        tuple(read_json(config.cuts / "hmm.json")["silence_pdfs"]),
    )
