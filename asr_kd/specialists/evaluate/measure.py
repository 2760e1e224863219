"""``python -m asr_kd.specialists.evaluate``: generalist, specialists and other networks, example by example."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.common.storage import read_json
from asr_kd.losses import average_distributions
from asr_kd.models.dnn import AcousticModel
from asr_kd.models.posteriors import scores
from asr_kd.specialists.ensemble import Ensemble
from asr_kd.specialists.source import Block

RESULTS = "results.json"
CURVE = 7  # points of the curve of right answers against specialists


class _Tally:
    """Counts over blocks of examples.

    Args:
        ensemble: generalist and specialists.
        others: the members of each other system.
    """

    def __init__(self, ensemble: Ensemble, others: Mapping[str, Sequence[AcousticModel]]) -> None:
        self.ensemble, self.others = ensemble, others
        specialists = len(ensemble.specialists)
        self.right: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.numbers = sorted({round(n) for n in np.linspace(0, specialists, min(CURVE, specialists + 1))})
        self.curve = np.zeros(len(self.numbers), np.int64)
        self.conditional = np.zeros((specialists, 3), np.int64)
        self.gap = 0.0

    def add(self, block: Block) -> None:
        answer = self.ensemble(block.inputs)
        self.gap = max(self.gap, answer.gap)
        found = [answer.general, answer.combined]
        for members in self.others.values():
            logits = [scores(model, block.inputs, self.ensemble.dtype) for model in members]
            found.append(average_distributions(logits))
        self.right.append(np.stack([(p.argmax(1) == block.labels).numpy() for p in found]))
        self.labels.append(block.labels.numpy())
        self.curve += [int((answer.of_first(n).argmax(1) == block.labels).sum()) for n in self.numbers]
        self.conditional += _conditional(self.ensemble, block, answer.general.numpy())


def _by_covering(right: np.ndarray, covering: np.ndarray) -> list[dict[str, int]]:
    """The paper's table 4: right answers by how many specialists cover the correct class."""
    table = []
    for number in np.unique(covering):
        here = covering == number
        general, combined = (int(row[here].sum()) for row in right)
        table.append(
            {"specialists": int(number), "examples": int(here.sum()), "general": general, "combined": combined}
        )
    return table


def _conditional(ensemble: Ensemble, block: Block, general: np.ndarray) -> np.ndarray:
    """The paper's table 3: of examples of a specialist's classes, when only these may be answered: (M, 3) examples,
    right answers of the generalist and of the specialist."""
    counts = np.zeros((len(ensemble.specialists), 3), np.int64)
    for number, tensor in enumerate(ensemble.classes):
        classes = tensor.numpy()
        here = np.isin(block.labels.numpy(), classes)
        if here.any():
            wanted = np.searchsorted(classes, block.labels.numpy()[here])
            said = ensemble.opinion(number, block.inputs[here]).probabilities[:, :-1].argmax(1).numpy()
            counts[number] = (
                here.sum(), (general[here][:, classes].argmax(1) == wanted).sum(), (said == wanted).sum()
            )  # fmt: skip
    return counts


def load_results(folder: Path) -> dict[str, Any]:
    """What ``main`` wrote."""
    return read_json(folder / RESULTS)
