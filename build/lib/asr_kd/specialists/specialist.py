"""One specialist: its classes, its training examples, and its dustbin (section 5.2)."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from asr_kd.common.errors import UserError
from asr_kd.models.network import AcousticModel
from asr_kd.models.posteriors import compute_logits
from asr_kd.train.batches import Batch
from asr_kd.train.fit import Loader


class SpecialClasses:
    """The classes of a specialist.  It selects its training examples: all of these classes, and as many of the others.

    Args:
        classes: its special classes.
        counts: (C,) training examples of every class.
        full: the specialist has an output for every class (section 6.1), instead of one for each of its n classes and a
            dustbin.

    Attributes:
        classes: (n,) ascending.
        fraction: of all training examples that are selected.
        correction: to be added to the logit of the dustbin after training: the log of how much less often its examples
            were selected than those of the special classes.

    Raises:
        UserError: there are no classes, or all of them, or none has an example.
    """

    def __init__(self, classes: np.ndarray, counts: np.ndarray, full: bool = False) -> None:
        self.classes, self.full = np.unique(classes), full
        inside = int(counts[self.classes].sum())
        outside = int(counts.sum()) - inside
        if not 0 < len(self.classes) < len(counts) or not inside or not outside:
            raise UserError(
                f"a specialist with {len(self.classes)} classes and {inside} of {inside + outside} training examples "
                "has nothing to distinguish: choose other classes"
            )
        others = min(inside, outside)
        self.fraction = (inside + others) / (inside + outside)
        self.correction = math.log(outside / others)
        self._local = torch.full((len(counts),), len(self.classes))
        self._local[torch.from_numpy(self.classes)] = torch.arange(len(self.classes))

    def __call__(self, labels: np.ndarray, order: np.random.Generator) -> np.ndarray:
        """Return the indices of the selected examples among ``labels`` (N,), shuffled."""
        special = np.isin(labels, self.classes)
        inside, outside = np.flatnonzero(special), np.flatnonzero(~special)
        others = order.choice(outside, min(len(inside), len(outside)), replace=False)
        return order.permutation(np.concatenate([inside, others]))

    def local_labels(self, labels: Tensor) -> Tensor:
        """Return labels (N,) as outputs of the specialist: the index in ``classes``, or n, the dustbin; unchanged if
        ``full``."""
        return labels if self.full else self._local.to(labels.device)[labels]

    def collapse(self, posteriors: Tensor) -> Tensor:
        """Return the generalist's posteriors (N, C) as soft targets for the specialist, (N, n + 1), or (N, C) if
        ``full``.  The dustbin has the sum of the other classes; these are scaled down as they are in the selection."""
        classes = torch.from_numpy(self.classes).to(posteriors.device)
        inside = posteriors[:, classes]
        if self.full:
            target = (posteriors * math.exp(-self.correction)).index_copy_(1, classes, inside)
        else:
            dustbin = (1 - inside.sum(1, keepdim=True)).clamp_(min=0) * math.exp(-self.correction)
            target = torch.cat([inside, dustbin], 1)
        return target / target.sum(1, keepdim=True).clamp_min(torch.finfo(target.dtype).tiny)


def corrected_posteriors(logits: Tensor, correction: float, classes: Tensor | None = None) -> Tensor:
    """Return the posteriors (N, n + 1) of a specialist, with the true prior of its dustbin.

    Args:
        logits: (N, n + 1); with ``classes``, (N, C).
        correction: see ``SpecialClasses``.
        classes: (n,) special classes, if the specialist has an output for every class.
    """
    if classes is None:
        return torch.cat([logits[:, :-1], logits[:, -1:] + correction], 1).float().softmax(1)
    raised = (logits.float() + correction).index_copy_(1, classes, logits[:, classes].float())
    inside = raised.softmax(1)[:, classes]
    return torch.cat([inside, (1 - inside.sum(1, keepdim=True)).clamp_(min=0)], 1)


class SpecialistLoader:
    """Batches for a specialist: labels are its outputs, with soft targets from the generalist.

    Args:
        loader: batches that ``special`` has selected.
        generalist: computes soft targets; None: labels only.
        temperature: of the soft targets.
    """

    def __init__(
        self, loader: Loader, special: SpecialClasses, generalist: AcousticModel | None = None, temperature: float = 1.0
    ) -> None:
        self.loader, self.special, self.generalist, self.temperature = loader, special, generalist, temperature

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, seed: int) -> Iterator[Batch]:
        for batch in self.loader.epoch(seed):
            soft = None if self.generalist is None else self._soft(self.generalist, batch)
            yield dataclasses.replace(batch, labels=self.special.local_labels(batch.labels), soft=soft)

    def _soft(self, generalist: AcousticModel, batch: Batch) -> Tensor:
        logits = compute_logits(generalist, batch.inputs, batch.inputs.dtype, batch.chunks)
        return self.special.collapse((logits / self.temperature).softmax(1))


def initial_specialist(generalist: AcousticModel, special: SpecialClasses, dropout: float = 0.0) -> AcousticModel:
    """Return a specialist with the generalist's weights.  Its dustbin starts as the mean of the other classes, with the
    log of their number added to its bias.

    Raises:
        UserError: the network's last layer is not its attribute ``output``, an nn.Linear.
    """
    network = generalist.network.with_args(dropout=dropout)
    if special.full:
        model = network.build()
        model.load_state_dict(generalist.state_dict())
        return model
    classes = torch.from_numpy(special.classes)
    model = dataclasses.replace(network, num_senones=len(classes) + 1).build()
    weights = generalist.state_dict()
    layer = "inner.output" if network.delay else "output"
    if not isinstance(dict(generalist.named_modules()).get(layer), nn.Linear):
        raise UserError(f"{network.name} cannot become a specialist: name its last layer, an nn.Linear, output")
    others = torch.ones(network.num_senones, dtype=torch.bool)
    others[classes] = False
    for name in (f"{layer}.weight", f"{layer}.bias"):
        old = weights[name].cpu()
        weights[name] = torch.cat([old[classes], old[others].mean(0, keepdim=True)])
    weights[f"{layer}.bias"][-1] += math.log(int(others.sum()))
    model.load_state_dict(weights)
    return model
