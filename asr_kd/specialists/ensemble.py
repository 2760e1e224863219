"""A generalist with its specialists, as one classifier (section 5.4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.models.checkpoints import load_model
from asr_kd.models.dnn import AcousticModel
from asr_kd.models.posteriors import scores
from asr_kd.specialists.combine import Opinion, active, combine, membership
from asr_kd.specialists.special import CLASSES, corrected


class Answer(NamedTuple):
    """Of N examples.

    Attributes:
        general: (N, C) the generalist's probabilities.
        opinions: of the M specialists.
        have_a_say: (N, M) bool.
        combined: (N, C) q.
        gap: nats that the worst example's sum of divergences may be above its minimum.
    """

    general: Tensor
    opinions: list[Opinion]
    have_a_say: Tensor
    combined: Tensor
    gap: float

    def of_first(self, number: int) -> Tensor:
        """(N, C) q of the generalist and the first ``number`` specialists."""
        if number == len(self.opinions):
            return self.combined
        return combine(self.general, self.opinions[:number], self.have_a_say[:, :number]).probabilities


class Ensemble:
    """Generalist and specialists.

    Args:
        generalist: its folder.
        specialists: their folders (made by asr_kd.specialists.train).
        likeliest: so many of the generalist's likeliest classes choose who has a say.
        dtype: of the matrix products.

    Raises:
        UserError: a model is missing or damaged, or the specialists are of other classes.
    """

    def __init__(self, generalist: Path, specialists: Sequence[Path], likeliest: int, dtype: torch.dtype) -> None:
        self.generalist, self.dtype, self.likeliest = load_model(generalist), dtype, likeliest
        self.specialists: list[AcousticModel] = [load_model(folder) for folder in specialists]
        self.classes = [torch.from_numpy(np.load(f / CLASSES, allow_pickle=False)) for f in specialists]
        self.about = [read_json(folder / "model.json") for folder in specialists]
        try:
            self.members = membership(self.classes, self.generalist.shape.num_pdfs)
        except ValueError as error:
            raise UserError(f"{generalist} and its specialists do not fit: {error}") from None

    def opinion(self, number: int, inputs: Tensor) -> Opinion:
        """What one specialist says of inputs (K, D)."""
        logits = scores(self.specialists[number], inputs, self.dtype)
        classes, about = self.classes[number], self.about[number]
        return Opinion(classes, corrected(logits, about["correction"], classes if about["full"] else None))

    def __call__(self, inputs: Tensor) -> Answer:
        """Answers to inputs (N, D)."""
        general = scores(self.generalist, inputs, self.dtype).softmax(1)
        say = active(general, self.members, self.likeliest)
        opinions = [self.opinion(m, inputs[say[:, m]]) for m in range(len(self.specialists))]
        combined = combine(general, opinions, say)
        return Answer(general, opinions, say, combined.probabilities, float(combined.gap.max()) if len(inputs) else 0.0)
