"""Soft targets computed by teachers that run during training, with the interface of the store."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, stage_fingerprint
from asr_kd.losses import Mean, average_distributions
from asr_kd.models.checkpoints import load_model
from asr_kd.models.network import AcousticModel, Chunks, is_window_classifier
from asr_kd.models.posteriors import compute_logits
from asr_kd.soft_targets.rows import TargetRows


class OnlineTargets:
    """An ensemble that computes the dense soft targets of each batch.

    Args:
        models: folders of the teachers (made by asr_kd.train).
        features: features folder that the student trains on; the teachers must have been trained on the same.
        student: a network that is built as the student.
        temperature: T > 0.
        mean: how the distributions of the teachers are averaged.
        device: that they run on.

    Raises:
        UserError: the teachers do not fit each other or the student.
    """

    def __init__(
        self, models: Sequence[Path], features: Path, student: AcousticModel, temperature: float = 1.0,
        mean: Mean = "arithmetic", device: str = "cpu",
    ) -> None:  # fmt: skip
        self.temperature, self.mean = temperature, mean
        self.models = [load_model(folder, device) for folder in models]
        self.num_pdfs = self.models[0].network.num_senones
        for folder, model in zip(models, self.models, strict=True):
            if model.network.num_senones != self.num_pdfs:
                raise UserError(f"{folder} has other senones than {models[0]}: give --teachers of one experiment")
            if is_window_classifier(student):
                _check_window(folder, model, student)
            if read_json(folder / "model.json")["features"] != stage_fingerprint(features):
                raise UserError(f"the teacher {folder} was trained on other features than {features}: train it again")

    def fault(self, key: str, frames: int) -> str:
        """Return "": no utterance is without soft targets."""
        return ""

    def read(self, cut_id: str, frames: int | None = None, start: int = 0, stop: int | None = None) -> None:
        """Return None: nothing is stored."""

    def batch(self, rows: TargetRows | None, index: np.ndarray, inputs: Tensor, chunks: Chunks | None = None) -> Tensor:
        """Return the soft targets (B, C) of windows (B, window × D), or of the frames of chunks, in float32."""
        logits = [compute_logits(model, inputs, inputs.dtype, chunks) for model in self.models]
        return average_distributions(logits, self.temperature, self.mean)


def _check_window(folder: Path, teacher: AcousticModel, student: AcousticModel) -> None:
    """Raises UserError unless a teacher can be given the windows of a student."""
    if not is_window_classifier(teacher):
        raise UserError(
            f"the teacher {folder} needs more than the student's windows: make a store with asr_kd.soft_targets, and "
            "give --soft-targets instead of --teachers"
        )
    if (teacher.left, teacher.right) != (student.left, student.right):
        raise UserError(
            f"the teacher {folder} sees {teacher.left} + 1 + {teacher.right} frames but the student sees "
            f"{student.left} + 1 + {student.right}: give the student the same --left and --right"
        )
