"""Figures of the specialists' report."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from asr_kd.common.storage import load_array
from asr_kd.report.draw import Drawing
from asr_kd.report.figures import BLUE, Series, line_plot, styled
from asr_kd.report.svg import MUTED, SERIES
from asr_kd.specialists.assign.clustering import correlation
from asr_kd.specialists.files import SIMILARITY, load_clusters, load_results
from asr_kd.specialists.report.config import Config
from asr_kd.specialists.report.tables import short_name

MAX_CELLS = 200  # per side of the image: smaller cells would vanish between pixels


def drawings(config: Config) -> Iterator[Drawing]:
    """Yield the figures of the report."""
    lines = []
    for colour, folder in zip(SERIES[1:], config.results, strict=False):
        results = load_results(folder)
        accuracies = [100 * count / results["examples"] for count in results["curve"].values()]
        lines.append(Series([int(number) for number in results["curve"]], accuracies, colour, short_name(folder)))
    plot = line_plot(lines, "Accuracy against number of specialists", "specialists", "accuracy, %")
    yield Drawing("curve", "Accuracy with the first specialists, by their number.", plot)
    similarity = load_array(config.clusters / SIMILARITY)
    caption = "Similarity of classes to the generalist, as correlations, ordered by cluster."
    yield Drawing("likeness", caption, similarity_plot(similarity, load_clusters(config.clusters)))


@styled
def similarity_plot(similarity: np.ndarray, groups: Sequence[Sequence[int]]) -> Figure:
    """Plot the correlations of different classes, ordered by cluster, with lines between clusters.

    Neighbouring classes that share a cell of the image show their highest correlation.  Cells from the 99th percentile
    on have the full colour.
    """
    seen: dict[int, None] = {}
    ends = []
    for group in groups:
        seen.update(dict.fromkeys(group))
        ends.append(len(seen))
    order = np.array(list(seen))
    correlations = correlation(similarity)[np.ix_(order, order)].clip(0, 1)
    np.fill_diagonal(correlations, 0)
    step = -(-len(order) // MAX_CELLS)
    cells = -(-len(order) // step)
    padded = np.pad(correlations, (0, cells * step - len(order)))
    image = padded.reshape(cells, step, cells, step).max((1, 3))
    figure = Figure(figsize=(4.4, 4.4))
    axes = figure.subplots()
    extent = (-0.5, cells * step - 0.5, cells * step - 0.5, -0.5)
    axes.imshow(image, cmap=BLUE, vmin=0, vmax=max(np.percentile(image, 99), 1e-6), extent=extent)
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color=MUTED, linewidth=0.2)
        axes.axvline(end - 0.5, color=MUTED, linewidth=0.2)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title("Classes by cluster")
    return figure
