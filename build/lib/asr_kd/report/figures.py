"""The report's figures, each a function from plain values to a Matplotlib figure."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from asr_kd.report.svg import HAIR, INK, MUTED, PAGE, SERIES, STYLE

Arguments = ParamSpec("Arguments")

#: Size in inches of a panel: it fits a phone, and two fit side by side on a wide screen.
PANEL = (4.5, 3.1)
#: CSS variables do not reach into an image: a blue that suits white and black.
POSTERIOR = "#2684d8"
#: Colour map of images, from transparent to that blue.
BLUE = LinearSegmentedColormap.from_list("blue", [POSTERIOR + "00", POSTERIOR])


def styled(function: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Make a function draw under ``STYLE``."""

    @functools.wraps(function)
    def inside(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return inside


@dataclass(frozen=True)
class Dots:
    """One row of ``dot_plot``: the mean, its seeds, and an interval if there is one."""

    label: str
    colour: str
    mean: float
    seeds: Sequence[float] = ()
    low: float | None = None
    high: float | None = None


@styled
def dot_plot(rows: Sequence[Dots], title: str, unit: str) -> Figure:
    """One line per system: the mean as a dot, seeds as ticks, the interval as a bar; labels above the lines."""
    figure, axes = panel(title, "", (PANEL[0], 0.85 + 0.52 * len(rows)))
    for place, row in enumerate(rows):
        height = -place
        axes.axhline(height, color=HAIR, linewidth=0.7, zorder=0)
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [height, height], color=row.colour, linewidth=5, alpha=0.28)
        if len(row.seeds) > 1:
            axes.plot(row.seeds, [height] * len(row.seeds), "|", color=row.colour, markersize=9, markeredgewidth=1)
        axes.plot(row.mean, height, "o", color=row.colour, markersize=6, markeredgecolor=PAGE, markeredgewidth=0.8)
        axes.annotate(row.label, (0, height), (0, 8), ("axes fraction", "data"), "offset points", fontsize=9)
        axes.annotate(
            f"{row.mean:.2f}", (1, height), (0, 8), ("axes fraction", "data"), "offset points",
            ha="right", fontsize=9, fontweight="bold", color=row.colour,
        )  # fmt: skip
    axes.set_ylim(-len(rows) + 0.5, 0.8)
    low, high = axes.get_xlim()
    axes.set_xlim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(unit)
    return figure


def panel(title: str, y_unit: str, size: tuple[float, float] = PANEL) -> tuple[Figure, Axes]:
    """One figure with its title at the left edge and the unit of y above the axis."""
    figure = Figure(figsize=size)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    axes = figure.add_subplot()
    axes.set_title(y_unit, fontsize=9.5, fontweight="normal", color=MUTED, pad=6)
    return figure, axes


@dataclass(frozen=True)
class Series:
    """One line: its x, y, colour, and the label at its end (none: unlabelled)."""

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    label: str = ""


@styled
def line_plot(series: Sequence[Series], title: str, x_unit: str, y_unit: str) -> Figure:
    """Lines with labels at their ends, pushed apart where they would overlap."""
    figure, axes = panel(title, y_unit)
    for line in series:
        width, alpha = (1.4, 1.0) if line.label else (0.9, 0.45)
        axes.plot(line.x, line.y, color=line.colour, linewidth=width, alpha=alpha)
    axes.set_xlabel(x_unit)
    whole = all(float(x).is_integer() for line in series for x in line.x)  # no ticks at half an epoch or half a network
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=whole))
    axes.xaxis.set_major_formatter(FuncFormatter(thousands))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    label_ends(axes, [line for line in series if line.label])
    return figure


def label_ends(axes: Axes, series: Sequence[Series]) -> None:
    """Write each line's label at its right end."""
    low, high = axes.get_ylim()
    gap = 0.075 * (high - low)
    heights = spread_out([line.y[-1] for line in series], gap, low + gap / 2, high - gap / 2)
    for line, height in zip(series, heights, strict=True):
        axes.annotate(
            line.label, (1, height), (6, 0), ("axes fraction", "data"), "offset points",
            va="center", fontsize=9, color=line.colour, annotation_clip=False,
        )  # fmt: skip


def spread_out(values: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """``values`` moved as little as needed to be ``gap`` apart, within [low, high] if they fit there."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    heights = np.clip(np.asarray([values[place] for place in order], dtype=float), low, max(low, high))
    for _ in range(200):
        for lower in range(len(heights) - 1):
            overlap = gap - (heights[lower + 1] - heights[lower])
            if overlap > 0:
                heights[lower] -= overlap / 2
                heights[lower + 1] += overlap / 2
        if gap * (len(heights) - 1) <= high - low:
            heights = np.clip(heights, low, high)
    placed = [0.0] * len(values)
    for place, height in zip(order, heights.tolist(), strict=True):
        placed[place] = height
    return placed


def thousands(value: float, _: object = None) -> str:
    """1500 as 1.5k."""
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


@dataclass(frozen=True)
class Sweep:
    """WER of one system on dev: the best over the insertion penalties at each acoustic scale."""

    label: str
    colour: str
    scales: Sequence[float]
    wer: Sequence[float]
    chosen: tuple[float, float]  # acoustic scale, WER


@styled
def sweep_plot(sweeps: Sequence[Sweep], title: str) -> Figure:
    """WER against acoustic scale, the chosen point marked."""
    series = [Series(s.scales, s.wer, s.colour, s.label) for s in sweeps]
    figure = line_plot(series, title, "acoustic scale (● chosen)", "WER, %")
    axes = figure.axes[0]
    for sweep in sweeps:
        axes.plot(
            *sweep.chosen, "o", color=sweep.colour, markersize=6.5, markeredgecolor=PAGE, markeredgewidth=1, zorder=5
        )
    return figure


@styled
def histogram(edges: Sequence[float], counts: Sequence[int], title: str, unit: str, marks: Sequence[float]) -> Figure:
    """Bars between ``edges`` (one more than ``counts``), in per cent of all; dashed lines at ``marks``."""
    figure, axes = panel(title, "boundaries, %")
    shares = 100 * np.asarray(counts) / max(1, sum(counts))
    axes.bar(edges[:-1], shares, np.diff(edges), align="edge", color=SERIES[1], edgecolor=PAGE, linewidth=0.5)
    axes.set_xlabel(unit)
    for mark in marks:
        axes.axvline(mark, color=MUTED, linewidth=0.9, linestyle=(0, (3, 2)))
    return figure


@dataclass(frozen=True)
class Utterance:
    """Content of ``posteriorgram``.

    Attributes:
        name, text: the utterance's id and words.
        features: (T, F) features, or log-mels that MFCCs stand for.
        row: what a row of their image is.
        phones: P names, the rows of the images.
        segments: (start, end, phone) of the alignment, in seconds.
        words: (start, end, word), in seconds.
        panels: title -> (T, P) posteriors summed into phones, T frames of ``frame_shift`` seconds.
    """

    name: str
    text: str
    features: np.ndarray
    row: str
    phones: Sequence[str]
    segments: Sequence[tuple[float, float, str]]
    words: Sequence[tuple[float, float, str]]
    panels: Mapping[str, np.ndarray]
    frame_shift: float = 0.01


@styled
def posteriorgram(utterance: Utterance) -> Figure:
    """Spectrogram with its alignment, above one panel of posteriors per model, over one time axis."""
    rows = len(utterance.phones)
    heights = [1.5, *[0.5 + 0.11 * rows] * len(utterance.panels)]
    figure = Figure(figsize=(9.0, sum(heights) + 0.6))
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    end = len(utterance.features) * utterance.frame_shift
    _spectrogram(axes[0], utterance, end)
    for panel, (title, posteriors) in zip(axes[1:], utterance.panels.items(), strict=True):
        _posteriors(panel, utterance, title, posteriors, end)
    axes[-1].set_xlabel("time, s")
    axes[-1].set_xlim(0, end)
    return figure


def _spectrogram(axes: Axes, utterance: Utterance, end: float) -> None:
    filters = utterance.features.shape[1]
    low, high = np.percentile(utterance.features, [2, 99.5])
    axes.imshow(
        utterance.features.T, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high,
        extent=(0, end, 0, filters), interpolation="nearest",
    )  # fmt: skip
    axes.set_ylabel(utterance.row)
    axes.set_yticks([1, filters // 2, filters])
    axes.grid(False)
    axes.tick_params(labelbottom=False)
    for start, stop, phone in utterance.segments:
        axes.axvline(start, color="#ffffff", linewidth=0.5, alpha=0.6)
        if phone != "SIL":
            _above(axes, (start + stop) / 2, phone.lower(), 3, 7.0 if stop - start > 0.05 else 5.5, MUTED)
    for start, stop, word in utterance.words:
        _above(axes, (start + stop) / 2, word.lower(), 14, 9.5, INK)


def _above(axes: Axes, time: float, text: str, offset: float, size: float, colour: str) -> None:
    place = (time, 1), (0, offset), ("data", "axes fraction"), "offset points"
    axes.annotate(text, *place, ha="center", fontsize=size, color=colour)


def _posteriors(axes: Axes, utterance: Utterance, title: str, posteriors: np.ndarray, end: float) -> None:
    """Opacity is the square root of the probability, so that a soft tail can be seen on either scheme."""
    rows = len(utterance.phones)
    colour = np.array([int(POSTERIOR[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    image = np.empty((rows, len(posteriors), 4), dtype=np.float32)
    image[..., :3] = colour
    image[..., 3] = np.sqrt(np.clip(posteriors.T, 0, 1))
    axes.imshow(image, origin="upper", aspect="auto", extent=(0, end, rows - 0.5, -0.5), interpolation="nearest")
    place = {phone: row for row, phone in enumerate(utterance.phones)}
    for start, stop, phone in utterance.segments:
        if phone in place:
            box = ([start, stop, stop, start, start], place[phone] + np.array([-0.5, -0.5, 0.5, 0.5, -0.5]))
            axes.plot(*box, color=SERIES[3], linewidth=0.7, solid_joinstyle="miter")
    axes.set_yticks(range(rows), [phone.lower() for phone in utterance.phones], fontsize=7)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.grid(False)
    axes.set_title(title)
