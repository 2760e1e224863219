"""Soft targets computed beside the student, with the interface of the store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr_kd.losses import Mean, average_distributions
from asr_kd.models import load_model
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.storage import UserError


class OnlineTargets:
    """An ensemble that answers for each batch what a store would have kept, dense.

    Args:
        models: teacher folders (made by asr_kd.train).
        temperature: T > 0.
        mean: how the members' distributions are averaged.
        device: where they run.

    Raises:
        UserError: the teachers have different senones or context windows.
    """

    def __init__(
        self, models: Sequence[Path], temperature: float = 1.0, mean: Mean = "arithmetic", device: str = "cpu"
    ) -> None:
        self.temperature, self.mean = temperature, mean
        self.models = [load_model(folder, device) for folder in models]
        shapes = {(m.shape.num_pdfs, m.shape.left, m.shape.right) for m in self.models}
        if len(shapes) > 1:
            raise UserError("--teachers have different senones or context windows: name teachers of one experiment")
        self.num_pdfs = self.models[0].shape.num_pdfs

    def read(self, cut_id: str, frames: int | None = None) -> None:
        """Nothing is stored."""

    @torch.no_grad()
    def batch(self, rows: TargetRows | None, index: np.ndarray, windows: Tensor) -> Tensor:
        """(B, C) float32 soft targets of ``windows`` (B, window × D)."""
        with torch.autocast(windows.device.type, windows.dtype, enabled=windows.dtype == torch.bfloat16):
            logits = [model(windows) for model in self.models]
        return average_distributions(logits, self.temperature, self.mean)
