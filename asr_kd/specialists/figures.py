"""Figures of specialists."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from asr_kd.mnist.figures import BLUE
from asr_kd.report.figures import styled
from asr_kd.report.svg import MUTED
from asr_kd.specialists.clusters import correlation


@styled
def likeness_plot(likeness: np.ndarray, groups: Sequence[Sequence[int]]) -> Figure:
    """Correlations of classes (C, C), ordered by cluster, with lines between clusters."""
    seen: dict[int, None] = {}
    ends = []
    for group in groups:
        seen.update(dict.fromkeys(group))
        ends.append(len(seen))
    order = np.array(list(seen))
    alike = correlation(likeness)[np.ix_(order, order)]
    figure = Figure(figsize=(4.4, 4.4))
    axes = figure.subplots()
    axes.imshow(np.sqrt(alike.clip(0, 1)), cmap=BLUE, vmin=0, vmax=1, interpolation="antialiased")
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color=MUTED, linewidth=0.3)
        axes.axvline(end - 0.5, color=MUTED, linewidth=0.3)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("Classes by cluster")
    return figure
