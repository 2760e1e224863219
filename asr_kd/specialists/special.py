"""One specialist: its classes, its training examples, and what its dustbin stands for (section 5.2)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.models.dnn import AcousticModel
from asr_kd.models.posteriors import scores
from asr_kd.train.batches import Batch
from asr_kd.train.fit import Loader

CLASSES = "classes.npy"


def folder_of(out: Path, number: int) -> Path:
    """Where one specialist stands."""
    return out / f"specialist-{number:02d}"


def folders(out: Path) -> list[Path]:
    """All specialists of a folder, in order."""
    return sorted(out.glob("specialist-*"), key=lambda path: int(path.name.rpartition("-")[2]))


class Special:
    """The classes of a specialist, and how it chooses its examples: all of its classes, and as many of the others.

    Args:
        classes: its special classes.
        counts: (C,) training examples of every class.
        full: the specialist has an output for every class (section 6.1), instead of its n classes and a dustbin.

    Attributes:
        classes: (n,) ascending.
        kept: share of all training examples that are chosen.
        correction: to be added to the logit of the dustbin after training: the log of how much less often its examples
            were chosen than those of the special classes.

    Raises:
        UserError: fewer than one class, or all of them, or none has an example.
    """

    def __init__(self, classes: np.ndarray, counts: np.ndarray, full: bool = False) -> None:
        self.classes, self.full = np.unique(classes), full
        inside = int(counts[self.classes].sum())
        outside = int(counts.sum()) - inside
        if not 0 < len(self.classes) < len(counts) or not inside or not outside:
            raise UserError(
                f"a specialist of {len(self.classes)} classes with {inside} of {inside + outside} training examples "
                "has nothing to tell apart: choose its classes anew"
            )
        others = min(inside, outside)
        self.kept = (inside + others) / (inside + outside)
        self.correction = math.log(outside / others)
        self._local = torch.full((len(counts),), len(self.classes))
        self._local[torch.from_numpy(self.classes)] = torch.arange(len(self.classes))

    def __call__(self, labels: np.ndarray, order: np.random.Generator) -> np.ndarray:
        """Which of some examples, labelled (N,), to learn from, shuffled."""
        special = np.isin(labels, self.classes)
        inside, outside = np.flatnonzero(special), np.flatnonzero(~special)
        others = order.choice(outside, min(len(inside), len(outside)), replace=False)
        return order.permutation(np.concatenate([inside, others]))

    def local(self, labels: Tensor) -> Tensor:
        """Labels (N,) as outputs of the specialist: the place in ``classes``, or n, the dustbin; if ``full``, as
        they are."""
        return labels if self.full else self._local.to(labels.device)[labels]

    def collapse(self, posteriors: Tensor) -> Tensor:
        """The generalist's posteriors (N, C) as a soft target for the specialist, (N, n + 1): the dustbin has the sum
        of the other classes, and what was chosen less often is as much rarer.  If ``full``, (N, C)."""
        classes = torch.from_numpy(self.classes).to(posteriors.device)
        inside = posteriors[:, classes]
        if self.full:
            target = (posteriors * math.exp(-self.correction)).index_copy_(1, classes, inside)
        else:
            dustbin = (1 - inside.sum(1, keepdim=True)).clamp_(min=0) * math.exp(-self.correction)
            target = torch.cat([inside, dustbin], 1)
        return target / target.sum(1, keepdim=True).clamp_min(torch.finfo(target.dtype).tiny)


def corrected(logits: Tensor, correction: float, classes: Tensor | None = None) -> Tensor:
    """Probabilities (N, n + 1) by a specialist's logits, its dustbin as frequent as it truly is.

    Args:
        logits: (N, n + 1); with ``classes``, (N, C).
        correction: see ``Special``.
        classes: (n,) special ones of a specialist with an output for every class.
    """
    if classes is None:
        return torch.cat([logits[:, :-1], logits[:, -1:] + correction], 1).float().softmax(1)
    raised = (logits.float() + correction).index_copy_(1, classes, logits[:, classes].float())
    inside = raised.softmax(1)[:, classes]
    return torch.cat([inside, (1 - inside.sum(1, keepdim=True)).clamp_(min=0)], 1)


class SpecialistLoader:
    """A loader's batches as a specialist sees them.

    Args:
        loader: chooses examples by ``special``.
        generalist: gives soft targets; None: labels alone.
        temperature: of the soft targets.
    """

    def __init__(
        self, loader: Loader, special: Special, generalist: AcousticModel | None = None, temperature: float = 1.0
    ) -> None:
        self.loader, self.special, self.generalist, self.temperature = loader, special, generalist, temperature

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, seed: int) -> Iterator[Batch]:
        for batch in self.loader.epoch(seed):
            soft = None if self.generalist is None else self._soft(batch.windows)
            yield dataclasses.replace(batch, labels=self.special.local(batch.labels), soft=soft)

    def _soft(self, windows: Tensor) -> Tensor:
        assert self.generalist is not None
        logits = scores(self.generalist, windows, windows.dtype)
        return self.special.collapse((logits / self.temperature).softmax(1))


def start_from(generalist: AcousticModel, special: Special, dropout: float = 0.0) -> AcousticModel:
    """A specialist with the generalist's weights; its dustbin begins as the mean of the other classes, raised by the
    log of their number."""
    if special.full:
        model = AcousticModel(dataclasses.replace(generalist.shape, dropout=dropout))
        model.load_state_dict(generalist.state_dict())
        return model
    classes = torch.from_numpy(special.classes)
    model = AcousticModel(dataclasses.replace(generalist.shape, num_pdfs=len(classes) + 1, dropout=dropout))
    weights = generalist.state_dict()
    others = torch.ones(generalist.shape.num_pdfs, dtype=torch.bool)
    others[classes] = False
    for name in ("output.weight", "output.bias"):
        old = weights[name].cpu()
        weights[name] = torch.cat([old[classes], old[others].mean(0, keepdim=True)])
    weights["output.bias"][-1] += math.log(int(others.sum()))
    model.load_state_dict(weights)
    return model
