"""From a study's networks to its figures: which ones there are, with their captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from asr_kd.losses import average_distributions
from asr_kd.mnist.biases import OFFSETS
from asr_kd.mnist.digits.read import Digits
from asr_kd.mnist.report import figures
from asr_kd.mnist.report.results import CORRECTED, Results
from asr_kd.mnist.stage import finished
from asr_kd.mnist.study.networks import LABELS
from asr_kd.mnist.training import TEST_LOGITS, load_logits
from asr_kd.report.svg import SERIES

#: Pairs that a transfer set tells of: digit, and what it looks like.
TELLING = ((2, 7), (2, 3), (4, 9), (7, 1), (5, 6), (9, 4))
SHOWN = (1.0, 4.0, 20.0)  # temperatures of their soft targets


def drawings(folder: Path, results: Results, train: Digits, test: Digits) -> Iterator[tuple[str, str, Figure]]:
    """Name, caption and figure of everything that there are networks for."""
    lines = _temperatures(results)
    if lines:
        caption = "Test errors against temperature: medians, with a tick for each seed."
        yield "temperatures", caption, figures.temperature_plot(lines)
    if "large" in results.networks:
        caption = "Training digits that look like others, and what a large network says of them at three temperatures."
        yield "telling-digits", caption, figures.telling_digits(_telling(finished(folder / "large")[0], train))
    if results.corrections:
        caption = (
            "Answers to the test digits before and after the biases of the digits in question were moved (seed 0). "
            "Opacity is the square root of the share of a digit's images."
        )
        yield "confusions", caption, figures.confusions(_confusions(folder, results, test))
        caption = "Errors against the offset of the biases (seed 0); it is chosen on training digits."
        sweeps = [
            figures.Sweep(
                LABELS[name], OFFSETS, 100 * np.array(seeds[0].train_errors) / len(train),
                100 * np.array(seeds[0].test_errors) / len(test), seeds[0].offset,
            )
            for name, seeds in results.corrections.items()
        ]  # fmt: skip
        yield "biases", caption, figures.sweep_plot(sweeps)


def _temperatures(results: Results) -> list[figures.Line]:
    lines = []
    for place, (width, found) in enumerate(results.by_width().items()):
        temperatures = sorted(t for t in found if t is not None)
        if temperatures:
            errors = [found[t].test for t in temperatures]
            middle = found[None].median if None in found else None
            lines.append(figures.Line(f"2×{width}", SERIES[1 + place], temperatures, errors, middle))
    return lines


def _telling(folder: Path, train: Digits) -> list[figures.Example]:
    """Of each pair in ``TELLING`` the image of the first digit, answered right, that looks most like the second."""
    logits = torch.from_numpy(load_logits(folder, train))
    labels = torch.from_numpy(train.labels)
    right = logits.argmax(1) == labels
    examples = []
    for digit, other in TELLING:
        likeness = torch.where((labels == digit) & right, logits[:, other] - logits[:, digit], -torch.inf)
        best = int(likeness.argmax())
        targets = {t: average_distributions([logits[best : best + 1]], t)[0].numpy() for t in SHOWN}
        examples.append(figures.Example(train.images[best], targets))
    return examples


def _confusions(folder: Path, results: Results, test: Digits) -> dict[str, list[np.ndarray]]:
    pairs = {}
    for name, seeds in results.corrections.items():
        logits = np.load(finished(folder / name)[0] / TEST_LOGITS, allow_pickle=False)
        moved = logits.copy()
        moved[:, CORRECTED[name]] += seeds[0].offset
        pairs[LABELS[name]] = [_counts(found.argmax(1), test.labels) for found in (logits, moved)]
    return pairs


def _counts(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(true digit, answer) counts."""
    return np.bincount(10 * labels + answers, minlength=100).reshape(10, 10)
