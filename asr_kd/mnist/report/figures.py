"""Figures of the study of MNIST, each a function from plain values to a Matplotlib figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from asr_kd.report.figures import styled
from asr_kd.report.svg import INK, MUTED, PAGE, SERIES

#: From the page to ink: transparent where there is nothing, so that it suits light and dark.
BLUE = LinearSegmentedColormap.from_list("blue", ["#2684d800", "#2684d8"])


@dataclass(frozen=True)
class Line:
    """Errors of one width against temperature.

    Attributes:
        label, colour: of the line.
        temperatures: x.
        errors: for each x the test errors of the seeds.
        hard: median errors of the same network on labels alone, or None.
    """

    label: str
    colour: str
    temperatures: Sequence[float]
    errors: Sequence[Sequence[int]]
    hard: float | None


@styled
def temperature_plot(lines: Sequence[Line]) -> Figure:
    """A panel a width: median test errors against T, seeds as small ticks, labels alone as a dashed line."""
    figure = Figure(figsize=(9.0, 3.0))
    for axes, line in zip(np.atleast_1d(figure.subplots(1, len(lines))), lines, strict=True):
        middle = [np.median(seeds) for seeds in line.errors]
        for x, seeds in zip(line.temperatures, line.errors, strict=True):
            axes.plot([x] * len(seeds), seeds, "_", color=line.colour, markersize=7, alpha=0.6)
        axes.plot(line.temperatures, middle, color=line.colour, linewidth=1.4, marker="o", markersize=4)
        if line.hard is not None:
            axes.axhline(line.hard, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
            axes.annotate(
                "labels alone", (1, line.hard), (0, 3), ("axes fraction", "data"), "offset points",
                ha="right", fontsize=8, color=MUTED,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xticks([1, 2, 4, 8, 20, 40], ["1", "2", "4", "8", "20", "40"])
        axes.minorticks_off()
        axes.set_title(line.label)
        axes.set_xlabel("temperature T")
    figure.axes[0].set_ylabel("test errors")
    return figure


@dataclass(frozen=True)
class Example:
    """An image with the soft targets it has at some temperatures: T -> (10,) probabilities."""

    image: np.ndarray
    targets: Mapping[float, np.ndarray]


@styled
def telling_digits(examples: Sequence[Example]) -> Figure:
    """A row a temperature below the images: what the teacher says of them."""
    temperatures = list(examples[0].targets)
    figure = Figure(figsize=(9.0, 1.5 + 1.2 * len(temperatures)))
    grid = figure.subplots(1 + len(temperatures), len(examples), height_ratios=[1.3, *[1] * len(temperatures)])
    for column, example in enumerate(examples):
        grid[0, column].imshow(example.image / 255, cmap=BLUE, interpolation="nearest")
        grid[0, column].axis("off")
        for row, (temperature, targets) in enumerate(example.targets.items(), 1):
            axes = grid[row, column]
            axes.bar(range(10), targets, color=SERIES[1], width=0.75)
            axes.set_ylim(0, 1)
            axes.set_xticks(range(10), [str(digit) for digit in range(10)], fontsize=7)
            axes.tick_params(axis="x", length=0)
            axes.set_yticks([0, 0.5, 1], ["0", "", "1"] if column == 0 else [""] * 3, fontsize=7)
            if column == 0:
                axes.set_ylabel(f"T = {temperature:g}")
    return figure


@styled
def confusions(pairs: Mapping[str, Sequence[np.ndarray]]) -> Figure:
    """For each title two matrices of counts (true digit, answer): before and after."""
    figure = Figure(figsize=(9.0, 4.4 * len(pairs)))
    grid = np.atleast_2d(figure.subplots(len(pairs), 2))
    for row, (title, matrices) in zip(grid, pairs.items(), strict=True):
        for axes, matrix, when in zip(row, matrices, ("before", "after"), strict=True):
            _confusion(axes, matrix, f"{title}\n{when}")
    return figure


def _confusion(axes: Axes, matrix: np.ndarray, title: str) -> None:
    """Opacity is the square root of the share of the digit's images."""
    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    axes.imshow(np.sqrt(shares), cmap=BLUE, vmin=0, vmax=1, interpolation="nearest")
    for true, answer in np.argwhere(matrix > 0):
        colour = PAGE if shares[true, answer] > 0.5 else INK
        axes.annotate(str(matrix[true, answer]), (answer, true), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(10))
    axes.set_yticks(range(10))
    axes.tick_params(length=0)
    axes.grid(False)
    axes.set_title(title)
    axes.set_xlabel("answer")
    axes.set_ylabel("digit")


@dataclass(frozen=True)
class Sweep:
    """Errors against the offset of some biases: shares of all digits wrong, per cent, and the offset chosen."""

    label: str
    offsets: np.ndarray
    train: np.ndarray
    test: np.ndarray
    chosen: float


@styled
def sweep_plot(sweeps: Sequence[Sweep]) -> Figure:
    """A panel a network: errors on training and on test digits against the offset, the chosen one marked."""
    figure = Figure(figsize=(9.0, 3.0))
    for axes, sweep in zip(np.atleast_1d(figure.subplots(1, len(sweeps))), sweeps, strict=True):
        axes.plot(sweep.offsets, sweep.train, color=SERIES[1], linewidth=1.4)
        axes.plot(sweep.offsets, sweep.test, color=SERIES[3], linewidth=1.4)
        axes.axvline(sweep.chosen, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
        for place, (name, colour) in enumerate((("training digits", SERIES[1]), ("test digits", SERIES[3]))):
            axes.annotate(name, (0.02, 0.93 - 0.09 * place), xycoords="axes fraction", color=colour)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_title(sweep.label)
        axes.set_xlabel("offset of the biases (dashed: chosen)")
    figure.axes[0].set_ylabel("errors, %")
    return figure
