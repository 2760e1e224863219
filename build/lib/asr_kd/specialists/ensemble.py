"""A generalist and its specialists as one classifier (section 5.4)."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.storage import load_array, read_json
from asr_kd.models.checkpoints import load_model
from asr_kd.models.network import Chunks, select
from asr_kd.models.posteriors import compute_logits
from asr_kd.specialists.combine import SpecialistPosteriors, active_specialists, combine, membership
from asr_kd.specialists.files import CLASSES
from asr_kd.specialists.specialist import corrected_posteriors


class EnsembleOutput(NamedTuple):
    """Posteriors of N examples.

    Attributes:
        generalist: (N, C) posteriors of the generalist.
        specialists: posteriors of the M specialists, each for the examples where it is active.
        active: (N, M) bool, which specialists are active.
        combined: (N, C) the combined distribution q.
        gap: largest bound on an example's distance from the optimum, nats (see ``Combined``).
    """

    generalist: Tensor
    specialists: list[SpecialistPosteriors]
    active: Tensor
    combined: Tensor
    gap: float

    def combine_first(self, number: int) -> Tensor:
        """Return q (N, C) of the generalist and the first ``number`` specialists."""
        if number == len(self.specialists):
            return self.combined
        return combine(self.generalist, self.specialists[:number], self.active[:, :number]).probabilities


class Ensemble:
    """A generalist and its specialists.

    Args:
        generalist: folder of the generalist.
        specialists: folders of the specialists (written by asr_kd.specialists.train).
        top_k: specialists are active that cover one of the generalist's ``top_k`` most probable classes.
        dtype: number type of matrix products.

    Raises:
        UserError: a model is missing or damaged, or the specialists have other classes than the generalist.
    """

    def __init__(self, generalist: Path, specialists: Sequence[Path], top_k: int, dtype: torch.dtype) -> None:
        self.generalist, self.dtype, self.top_k = load_model(generalist), dtype, top_k
        self.specialists = [load_model(folder) for folder in specialists]
        self.classes = [torch.from_numpy(load_array(f / CLASSES)) for f in specialists]
        self.metadata = [read_json(folder / "model.json") for folder in specialists]
        try:
            self.members = membership(self.classes, self.generalist.network.num_senones)
        except ValueError as error:
            raise UserError(f"{generalist} and its specialists do not fit each other: {error}") from None

    def specialist(self, number: int, inputs: Tensor, chunks: Chunks | None = None) -> SpecialistPosteriors:
        """Return one specialist's posteriors for the examples of a batch (see ``asr_kd.models.network.outputs``)."""
        logits = compute_logits(self.specialists[number], inputs, self.dtype, chunks)
        classes, metadata = self.classes[number], self.metadata[number]
        probabilities = corrected_posteriors(logits, metadata["correction"], classes if metadata["full"] else None)
        return SpecialistPosteriors(classes, probabilities)

    def __call__(self, inputs: Tensor, chunks: Chunks | None = None) -> EnsembleOutput:
        """Return the posteriors of the N examples of a batch (see ``asr_kd.models.network.outputs``)."""
        generalist = compute_logits(self.generalist, inputs, self.dtype, chunks).softmax(1)
        active = active_specialists(generalist, self.members, self.top_k)
        specialists = [self.specialist(m, *select(inputs, chunks, active[:, m])) for m in range(len(self.specialists))]
        combined = combine(generalist, specialists, active)
        gap = float(combined.gap.max()) if len(generalist) else 0.0
        return EnsembleOutput(generalist, specialists, active, combined.probabilities, gap)
