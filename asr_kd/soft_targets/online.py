"""Soft targets computed by teachers that run during training, with the interface of the store."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, stage_fingerprint
from asr_kd.losses import Mean, average_distributions
from asr_kd.models.checkpoints import load_model
from asr_kd.models.posteriors import compute_logits
from asr_kd.soft_targets.rows import TargetRows


class OnlineTargets:
    """An ensemble that computes the dense soft targets of each batch.

    Args:
        models: folders of the teachers (made by asr_kd.train).
        features: features folder that the student trains on; the teachers must have been trained on the same.
        context: left and right context frames of the student, whose windows the teachers get.
        temperature: T > 0.
        mean: how the distributions of the teachers are averaged.
        device: that they run on.

    Raises:
        UserError: the teachers do not fit each other or the student.
    """

    def __init__(
        self, models: Sequence[Path], features: Path, context: tuple[int, int], temperature: float = 1.0,
        mean: Mean = "arithmetic", device: str = "cpu",
    ) -> None:  # fmt: skip
        self.temperature, self.mean = temperature, mean
        self.models = [load_model(folder, device) for folder in models]
        self.num_pdfs = self.models[0].shape.num_pdfs
        for folder, shape in zip(models, (m.shape for m in self.models), strict=True):
            if shape.num_pdfs != self.num_pdfs:
                raise UserError(f"{folder} has other senones than {models[0]}: give --teachers of one experiment")
            if (shape.left, shape.right) != context:
                raise UserError(
                    f"the teacher {folder} sees {shape.left} + 1 + {shape.right} frames but the student sees "
                    f"{context[0]} + 1 + {context[1]}: give the student the same --left and --right"
                )
            if read_json(folder / "model.json")["features"] != stage_fingerprint(features):
                raise UserError(f"the teacher {folder} was trained on other features than {features}: train it again")

    def fault(self, key: str, frames: int) -> str:
        """Return "": no utterance is without soft targets."""
        return ""

    def read(self, cut_id: str, frames: int | None = None) -> None:
        """Return None: nothing is stored."""

    def batch(self, rows: TargetRows | None, index: np.ndarray, windows: Tensor) -> Tensor:
        """Return the soft targets (B, C) of ``windows`` (B, window × D), in float32."""
        logits = [compute_logits(model, windows, windows.dtype) for model in self.models]
        return average_distributions(logits, self.temperature, self.mean)
