"""Accuracy of a generalist, of its specialists and of other networks, example by example."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_kd.common.progress import progress
from asr_kd.losses import average_distributions
from asr_kd.models.checkpoints import load_model
from asr_kd.models.device import device_and_dtype
from asr_kd.models.network import select
from asr_kd.models.posteriors import compute_logits
from asr_kd.specialists.ensemble import Ensemble
from asr_kd.specialists.evaluate.config import Config
from asr_kd.specialists.examples import Block, open_examples

CURVE_POINTS = 7  # of the curve of accuracy against the number of specialists


def measure(
    config: Config, specialists: Sequence[Path], others: Mapping[str, Sequence[Path]]
) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """Evaluate the ensemble and the other networks.

    Args:
        specialists: their folders.
        others: folders of the networks of each other system.

    Returns:
        content of results.json; which answers are correct, (systems, examples) bool; the unit of each example.
    """
    _, dtype = device_and_dtype("cpu", "auto")
    ensemble = Ensemble(config.generalist, specialists, config.top_k, dtype)
    counts = Counts(ensemble, others)
    examples = open_examples(config)
    blocks = examples.blocks(config.split)
    for block in progress(blocks, config.split, examples.num_blocks(config.split), "block"):
        counts.add(block)
    correct, labels = np.concatenate(counts.correct, 1), np.concatenate(counts.labels)
    sizes = [len(block_labels) for block_labels in counts.labels]
    units = np.repeat(np.arange(len(sizes)), sizes) if examples.grouped else np.arange(len(labels))
    names = ["generalist", "generalist + specialists", *others]
    results = {
        "systems": {name: int(row.sum()) for name, row in zip(names, correct, strict=True)},
        "examples": len(labels),
        "by_specialists_covering": count_by_coverage(correct[:2], ensemble.members.sum(0).numpy()[labels]),
        # Number of specialists, the first ones -> correct answers.
        "curve": dict(zip(map(str, counts.numbers), counts.curve.tolist(), strict=True)),
        # For each specialist: examples of its classes; correct answers of the generalist and of the specialist.
        "conditional": counts.conditional.tolist(),
        "gap": counts.gap,
    }
    return results, correct, units


class Counts:
    """Correct answers, counted over blocks of examples.

    Args:
        ensemble: generalist and specialists.
        others: folders of the networks of each other system.
    """

    def __init__(self, ensemble: Ensemble, others: Mapping[str, Sequence[Path]]) -> None:
        self.ensemble = ensemble
        self.others = [[load_model(folder) for folder in folders] for folders in others.values()]
        specialists = len(ensemble.specialists)
        self.correct: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.numbers = sorted({round(n) for n in np.linspace(0, specialists, min(CURVE_POINTS, specialists + 1))})
        self.curve = np.zeros(len(self.numbers), np.int64)
        self.conditional = np.zeros((specialists, 3), np.int64)
        self.gap = 0.0

    def add(self, block: Block) -> None:
        output = self.ensemble(block.inputs, block.chunks)
        self.gap = max(self.gap, output.gap)
        systems = [output.generalist, output.combined]
        for models in self.others:
            logits = [compute_logits(model, block.inputs, self.ensemble.dtype, block.chunks) for model in models]
            systems.append(average_distributions(logits))
        self.correct.append(np.stack([(p.argmax(1) == block.labels).numpy() for p in systems]))
        self.labels.append(block.labels.numpy())
        firsts = [output.combine_first(number) for number in self.numbers]
        self.curve += [int((q.argmax(1) == block.labels).sum()) for q in firsts]
        self._add_conditional(block, output.generalist.numpy())

    def _add_conditional(self, block: Block, generalist: np.ndarray) -> None:
        """Count for the paper's table 3: examples of a specialist's classes, with answers restricted to these."""
        labels = block.labels.numpy()
        for number, tensor in enumerate(self.ensemble.classes):
            classes = tensor.numpy()
            here = np.isin(labels, classes)
            if here.any():
                targets = np.searchsorted(classes, labels[here])
                examples = select(block.inputs, block.chunks, torch.from_numpy(here))
                posteriors = self.ensemble.specialist(number, *examples).probabilities[:, :-1].numpy()
                answers = generalist[here][:, classes].argmax(1), posteriors.argmax(1)
                self.conditional[number] += (here.sum(), *((answer == targets).sum() for answer in answers))


def count_by_coverage(correct: np.ndarray, coverage: np.ndarray) -> list[dict[str, int]]:
    """Return the paper's table 4: correct answers by the number of specialists that cover the correct class.

    Args:
        correct: (2, N) bool, answers of the generalist, and of the generalist with specialists.
        coverage: (N,) specialists that cover each example's class.
    """
    table = []
    for number in np.unique(coverage):
        here = coverage == number
        general, combined = (int(row[here].sum()) for row in correct)
        table.append(
            {"specialists": int(number), "examples": int(here.sum()), "general": general, "combined": combined}
        )
    return table
