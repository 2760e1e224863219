"""Figures of the MNIST report."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from asr_kd.common.storage import load_array
from asr_kd.losses import average_distributions
from asr_kd.mnist.digits.dataset import Digits
from asr_kd.mnist.report.biases import OFFSETS, Correction
from asr_kd.mnist.report.results import CORRECTED, Errors, Results
from asr_kd.mnist.study.networks import LABELS, trained_seeds
from asr_kd.mnist.training import TEST_LOGITS, load_logits
from asr_kd.report.draw import Drawing
from asr_kd.report.figures import BLUE, styled
from asr_kd.report.svg import INK, MUTED, PAGE, SERIES

#: Pairs of a digit and another one that it can be mistaken for.
SIMILAR = ((2, 7), (2, 3), (4, 9), (7, 1), (5, 6), (9, 4))
TEMPERATURES = (1.0, 4.0, 20.0)  # of the soft targets shown


def drawings(folder: Path, results: Results, train: Digits, test: Digits) -> Iterator[Drawing]:
    """Yield every figure for which there are finished networks in ``folder``."""
    widths = results.by_width()
    if any(temperature is not None for errors in widths.values() for temperature in errors):
        caption = "Test errors (of 10,000) against temperature: medians, with a tick per seed."
        yield Drawing("temperatures", caption, temperature_plot(widths), wide=True)
    if "large" in results.networks:
        caption = "Training images that resemble another digit, and a large network's soft targets for them."
        targets = _soft_targets(trained_seeds(folder / "large")[0], train)
        yield Drawing("telling-digits", caption, soft_target_plot(targets), wide=True)
    if results.corrections:
        caption = (
            "Confusion matrices on the test images before and after the bias correction (seed 0). Opacity is the "
            "square root of the fraction of a digit's images."
        )
        matrices = {
            LABELS[name]: _confusions(folder / name, corrections[0], test)
            for name, corrections in results.corrections.items()
        }
        yield Drawing("confusions", caption, confusion_plot(matrices), wide=True)
        caption = "Error rate against the offset of the biases (seed 0), which is chosen on the training images."
        first = {LABELS[name]: corrections[0] for name, corrections in results.corrections.items()}
        yield Drawing("biases", caption, bias_plot(first, len(train), len(test)), wide=True)


def _soft_targets(folder: Path, train: Digits) -> list[tuple[np.ndarray, dict[float, np.ndarray]]]:
    """Return, for each pair in ``SIMILAR``, the correctly classified image of the first digit that resembles the second
    one most, and its soft targets by temperature."""
    logits = torch.from_numpy(load_logits(folder, train))
    labels = torch.from_numpy(train.labels)
    correct = logits.argmax(1) == labels
    examples = []
    for digit, other in SIMILAR:
        similarity = torch.where((labels == digit) & correct, logits[:, other] - logits[:, digit], -torch.inf)
        best = int(similarity.argmax())
        targets = {t: average_distributions([logits[best : best + 1]], t)[0].numpy() for t in TEMPERATURES}
        examples.append((train.images[best], targets))
    return examples


def _confusions(folder: Path, correction: Correction, test: Digits) -> list[np.ndarray]:
    """Return the confusion matrices (digit, prediction) before and after the correction."""
    logits = load_array(trained_seeds(folder)[0] / TEST_LOGITS)
    corrected = logits.copy()
    corrected[:, CORRECTED[folder.name]] += correction.offset
    return [
        np.bincount(10 * test.labels + scores.argmax(1), minlength=100).reshape(10, 10)
        for scores in (logits, corrected)
    ]


@styled
def temperature_plot(widths: Mapping[int, Mapping[float | None, Errors]]) -> Figure:
    """Plot median test errors against T: a panel per width, seeds as ticks, labels only as a dashed line."""
    figure = Figure(figsize=(9.0, 3.0))
    panels = np.atleast_1d(figure.subplots(1, len(widths)))
    for axes, colour, (width, errors) in zip(panels, SERIES[1:], widths.items(), strict=False):
        temperatures = sorted(t for t in errors if t is not None)
        for temperature in temperatures:
            seeds = errors[temperature].test
            axes.plot([temperature] * len(seeds), seeds, "_", color=colour, markersize=7, alpha=0.6)
        medians = [errors[t].median for t in temperatures]
        axes.plot(temperatures, medians, color=colour, linewidth=1.4, marker="o", markersize=4)
        if None in errors:
            median = errors[None].median
            axes.axhline(median, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
            axes.annotate(
                "labels only", (1, median), (0, 3), ("axes fraction", "data"), "offset points",
                ha="right", fontsize=8, color=MUTED,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 4, 8, 20, 40], ["1", "2", "4", "8", "20", "40"])
        axes.minorticks_off()
        axes.set_title(f"2×{width}")
        axes.set_xlabel("temperature T")
    figure.axes[0].set_ylabel("test errors")
    return figure


@styled
def soft_target_plot(examples: Sequence[tuple[np.ndarray, Mapping[float, np.ndarray]]]) -> Figure:
    """Plot images in a row, and below each one its soft targets in a row per temperature."""
    temperatures = list(examples[0][1])
    figure = Figure(figsize=(9.0, 1.5 + 1.2 * len(temperatures)))
    grid = figure.subplots(1 + len(temperatures), len(examples), height_ratios=[1.3, *[1] * len(temperatures)])
    for column, (image, targets) in enumerate(examples):
        grid[0, column].imshow(image / 255, cmap=BLUE, interpolation="nearest")
        grid[0, column].axis("off")
        for row, (temperature, probabilities) in enumerate(targets.items(), 1):
            axes = grid[row, column]
            axes.bar(range(10), probabilities, color=SERIES[1], width=0.75)
            axes.set_ylim(0, 1)
            axes.set_xticks(range(10), [str(digit) for digit in range(10)], fontsize=7)
            axes.tick_params(axis="x", length=0)
            axes.set_yticks([0, 0.5, 1], ["0", "", "1"] if column == 0 else [""] * 3, fontsize=7)
            if column == 0:
                axes.set_ylabel(f"T = {temperature:g}")
    return figure


@styled
def confusion_plot(pairs: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """Plot two confusion matrices (digit, prediction) under each title: before and after."""
    figure = Figure(figsize=(9.0, 4.4 * len(pairs)))
    grid = np.atleast_2d(figure.subplots(len(pairs), 2))
    for row, (title, matrices) in zip(grid, pairs.items(), strict=True):
        for axes, matrix, when in zip(row, matrices, ("before", "after"), strict=True):
            _confusion(axes, matrix, f"{title}\n{when}")
    return figure


def _confusion(axes: Axes, matrix: np.ndarray, title: str) -> None:
    fractions = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    axes.imshow(np.sqrt(fractions), cmap=BLUE, vmin=0, vmax=1, interpolation="nearest")
    for digit, prediction in np.argwhere(matrix > 0):
        colour = PAGE if fractions[digit, prediction] > 0.5 else INK
        text, place = str(matrix[digit, prediction]), (prediction, digit)
        axes.annotate(text, place, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(10))
    axes.set_yticks(range(10))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.set_title(title)
    axes.set_xlabel("prediction")
    axes.set_ylabel("digit")


@styled
def bias_plot(corrections: Mapping[str, Correction], train_size: int, test_size: int) -> Figure:
    """Plot training and test error rates against the offset: a panel per network, a dashed line at the chosen one."""
    figure = Figure(figsize=(9.0, 3.0))
    panels = np.atleast_1d(figure.subplots(1, len(corrections)))
    for axes, (title, correction) in zip(panels, corrections.items(), strict=True):
        train, test = SERIES[1], SERIES[3]
        axes.plot(OFFSETS, 100 * np.array(correction.train_errors) / train_size, color=train, linewidth=1.4)
        axes.plot(OFFSETS, 100 * np.array(correction.test_errors) / test_size, color=test, linewidth=1.4)
        axes.axvline(correction.offset, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
        for row, (name, colour) in enumerate((("training images", train), ("test images", test))):
            axes.annotate(name, (0.02, 0.93 - 0.09 * row), xycoords="axes fraction", color=colour)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_title(title)
        axes.set_xlabel("offset of the biases (dashed: chosen)")
    figure.axes[0].set_ylabel("error rate, %")
    return figure
