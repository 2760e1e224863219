"""Figures of specialists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from asr_kd.mnist.report.figures import BLUE
from asr_kd.report.figures import styled
from asr_kd.report.svg import MUTED
from asr_kd.specialists.clusters import correlation

CELLS = 200  # a side of the image, at most: what is smaller would vanish between pixels


@styled
def likeness_plot(likeness: np.ndarray, groups: Sequence[Sequence[int]]) -> Figure:
    """Correlations of different classes, of (C, C), ordered by cluster, with lines between clusters; of neighbouring
    classes that fall on one spot the highest, full colour for the highest percentile of all spots."""
    seen: dict[int, None] = {}
    ends = []
    for group in groups:
        seen.update(dict.fromkeys(group))
        ends.append(len(seen))
    order = np.array(list(seen))
    alike = correlation(likeness)[np.ix_(order, order)].clip(0, 1)
    np.fill_diagonal(alike, 0)
    step = -(-len(order) // CELLS)
    cells = -(-len(order) // step)
    alike = np.pad(alike, (0, cells * step - len(order))).reshape(cells, step, cells, step).max((1, 3))
    figure = Figure(figsize=(4.4, 4.4))
    axes = figure.subplots()
    extent = (-0.5, cells * step - 0.5, cells * step - 0.5, -0.5)
    axes.imshow(alike, cmap=BLUE, vmin=0, vmax=max(np.percentile(alike, 99), 1e-6), extent=extent)
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color=MUTED, linewidth=0.2)
        axes.axvline(end - 0.5, color=MUTED, linewidth=0.2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("Classes by cluster")
    return figure
