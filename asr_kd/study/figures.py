"""Figures of studies."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from asr_kd.report.figures import Series, label_ends, panel, styled, thousands

#: Names of more letters in all do not fit below an axis side by side.
MAX_LETTERS = 40


@dataclass(frozen=True)
class Spread:
    """A line of means over seeds: x, the values of the seeds at each x, colour and label."""

    x: Sequence[float]
    seeds: Sequence[Sequence[float]]
    colour: str
    label: str


@styled
def spread_plot(
    lines: Sequence[Spread], title: str, x_unit: str, y_unit: str, log: bool = False, names: Sequence[str] = ()
) -> Figure:
    """Means as dots on a line, seeds as ticks; x is logarithmic on request, or has ``names`` at 0, 1, …"""
    figure, axes = panel(title, y_unit)
    ends = []
    for line in lines:
        means = [fmean(seeds) for seeds in line.seeds]
        axes.plot(line.x, means, color=line.colour, linewidth=1.4, marker="o", markersize=4)
        for x, seeds in zip(line.x, line.seeds, strict=True):
            axes.plot([x] * len(seeds), seeds, "_", color=line.colour, markersize=7, alpha=0.6)
        ends.append(Series(line.x, means, line.colour, line.label))
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
    if names:
        crowded = sum(map(len, names)) > MAX_LETTERS
        angle, end = (40, "right") if crowded else (0, "center")
        axes.set_xticks(range(len(names)), names, rotation=angle, ha=end, rotation_mode="anchor")
    else:
        axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    axes.set_xlabel(x_unit)
    label_ends(axes, ends)
    return figure


def _short(value: float, place: object = None) -> str:
    """1500 as 1.5k, two million as 2M."""
    return f"{value / 1e6:g}M" if abs(value) >= 1e6 else thousands(value)
