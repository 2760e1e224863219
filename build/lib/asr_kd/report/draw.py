"""The figures of a report, with their captions."""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from asr_kd.common.errors import UserError
from asr_kd.common.storage import MARK, load_array, read_json
from asr_kd.lang.folder import Lang
from asr_kd.report import figures
from asr_kd.report.svg import SERIES, render
from asr_kd.report.utterance import Panel, read_utterance
from asr_kd.score.collect import Curve, Results, Row
from asr_kd.score.systems import GMMS, System, finished_runs


@dataclass(frozen=True)
class Drawing:
    """One figure of a page.

    Attributes:
        name: name of its files.
        caption: text below it.
        figure: the figure itself.
        wide: whether it takes the whole width of the page.
        group: heading under which neighbouring drawings of the same group are shown.
    """

    name: str
    caption: str
    figure: Figure
    wide: bool = False
    group: str = "Figures"

    @functools.cached_property
    def svg(self) -> str:
        """The ``<svg>`` element for a page."""
        return render(self.figure, self.name)

    def named(self, name: str) -> Drawing:
        """The same drawing under another name."""
        return dataclasses.replace(self, name=name)


def draw(boundaries: Path, systems: Sequence[System], results: Results, curves: Sequence[Curve]) -> Iterator[Drawing]:
    """All figures, apart from the posteriorgram, for which there is something to draw."""
    colours = colours_of(systems)
    yield from table_drawings(results, colours)
    yield from curve_drawings(curves, colours)
    yield from _sweeps(systems, colours)
    yield from _boundaries(boundaries)


def colours_of(systems: Sequence[System]) -> dict[str, str]:
    """Grey for the GMM, then one colour per system."""
    others = [system.name for system in systems if system.kind not in GMMS]
    colours = {name: SERIES[1 + place % (len(SERIES) - 1)] for place, name in enumerate(others)}
    return {system.name: colours.get(system.name, SERIES[0]) for system in systems}


def table_drawings(results: Results, colours: Mapping[str, str]) -> Iterator[Drawing]:
    """Frame accuracies, and word error rates of each test set."""
    group = "Table 1 as a picture"
    accuracies = [dots for row in results.rows if (dots := _accuracy_dots(row, colours[row.name])) is not None]
    if accuracies:
        caption = "Share of all test frames with the correct senone. Dots: means over seeds; ticks: seeds."
        figure = figures.dot_plot(accuracies, "Frame accuracy, test", "frame accuracy, %")
        yield Drawing("frame-accuracy", caption, figure, group=group)
    for split in results.splits:
        rows = [
            figures.Dots(row.label, colours[row.name], words.wer, list(words.seeds.values()), words.low, words.high)
            for row in results.rows
            if (words := row.words.get(split)) is not None
        ]
        if rows and split != "dev":
            caption = f"Word error rate on {split}. Bars: 95 % bootstrap intervals, seeds pooled; ticks: seeds."
            figure = figures.dot_plot(rows, f"WER, {split}", "WER, %")
            yield Drawing(f"wer-{split}", caption, figure, group=group)


def _accuracy_dots(row: Row, colour: str) -> figures.Dots | None:
    seeds = list(row.accuracy.get("test", {}).get("all", {}).values())
    return figures.Dots(row.label, colour, fmean(seeds), seeds) if seeds else None


def curve_drawings(curves: Sequence[Curve], colours: Mapping[str, str]) -> Iterator[Drawing]:
    """Frame accuracy and loss against updates."""
    for key, title, unit, caption in (
        ("dev_accuracy", "Dev frame accuracy", "%", "after each epoch"),
        ("dev_loss", "Dev cross-entropy", "nats per frame", "against the aligned senones, at temperature 1"),
        ("train_accuracy", "Training frame accuracy", "%", "with dropout on, over each epoch"),
    ):
        series = [line for curve in curves if (line := _line(curve, key, colours[curve.system])) is not None]
        if series:
            labelled = _means(curves, key, colours)
            figure = figures.line_plot([*series, *labelled], title, "updates", unit)
            caption = f"{title}, {caption}. Thin: seeds; thick: mean."
            yield Drawing(key.replace("_", "-"), caption, figure, group="Learning curves")


def _line(curve: Curve, key: str, colour: str) -> figures.Series | None:
    points = [(e["updates"], e[key]) for e in curve.entries if "updates" in e and key in e]
    return figures.Series([x for x, _ in points], [y for _, y in points], colour) if points else None


def _means(curves: Sequence[Curve], key: str, colours: Mapping[str, str]) -> list[figures.Series]:
    """One labelled line per system: the mean over its seeds, up to the last update that all of them reached."""
    lines = []
    for name in dict.fromkeys(curve.system for curve in curves):
        own = [curve for curve in curves if curve.system == name]
        drawn = [line for curve in own if (line := _line(curve, key, colours[name])) is not None]
        length = min((len(line.x) for line in drawn), default=0)
        if length:
            y = [fmean(line.y[place] for line in drawn) for place in range(length)]
            lines.append(figures.Series(drawn[0].x[:length], y, colours[name], own[0].label))
    return lines


def _sweeps(systems: Sequence[System], colours: Mapping[str, str]) -> Iterator[Drawing]:
    """WER on dev against the acoustic scale, for every network that values were tuned on."""
    sweeps, drawn = [], set()
    for system in systems:
        folder = system.tuned
        if folder is None or folder in drawn or not (folder / "sweep_dev.json").is_file():
            continue
        drawn.add(folder)
        best: dict[float, float] = {}
        for point in read_json(folder / "sweep_dev.json")["points"]:
            scale = point["acoustic_scale"]
            best[scale] = min(point["wer"], best.get(scale, point["wer"]))
        tuned = read_json(folder / "tuned.json")
        scales = sorted(best)
        chosen = (tuned["acoustic_scale"], tuned["wer"])
        sweeps.append(
            figures.Sweep(system.label, colours[system.name], scales, [best[scale] for scale in scales], chosen)
        )
    if sweeps:
        caption = "Word error rate on dev against acoustic scale, at the best word insertion penalty for each scale."
        figure = figures.sweep_plot(sweeps, "WER against acoustic scale, dev")
        yield Drawing("acoustic-scale", caption, figure, group="Tuning and alignment")


def _boundaries(folder: Path) -> Iterator[Drawing]:
    """Histogram of the signed boundary errors of test (else the first split), up to 100 ms on either side."""
    path = folder / "boundaries.json"
    if not path.is_file():
        return
    found = read_json(path)
    split = "test" if "test" in found else next(iter(found))
    phones = found[split]["phones"]
    errors = load_array(folder / f"boundaries_{split}.npy")
    edges = np.arange(-100.0, 101.0, 5.0)
    counts = np.histogram(np.clip(errors, edges[0], edges[-1]), edges)[0]
    caption = (
        f"Aligned minus true time of {len(errors)} phone boundaries of {split}: the median distance is "
        f"{phones['median_ms']:.1f} ms, and {phones['within_percent']['30']:.0f} % lie within 30 ms (dashed). "
        "The outermost bars hold all that is further away."
    )
    figure = figures.histogram(edges.tolist(), counts.tolist(), "Alignment against truth", "error, ms", (-30, 30))
    yield Drawing("boundaries", caption, figure, group="Tuning and alignment")


def draw_utterance(exp: Path, gmm: Path, systems: Sequence[System], results: Results, wanted: str) -> Drawing | None:
    """The posteriorgram: a single network and the student at T = 1, the ensemble at the soft targets' temperature.

    Returns:
        None when the models or the alignment are not there; ``results.not_run`` then says why.
    """
    by_name = {system.name: system for system in systems}
    student = next((s for s in systems if s.kind == "student" and s.twin == results.baseline), None)
    targets: dict[str, Any] = {"temperatures": [1.0], "mean": "arithmetic"}
    if (mark := exp / "soft_targets" / MARK).is_file():
        targets = read_json(mark)["settings"]
    panels = []
    single, ensemble = by_name.get(results.baseline), by_name.get(results.ensemble)
    for system, t in ((single, 1.0), (ensemble, float(targets["temperatures"][0])), (student, 1.0)):
        runs = [run for run in finished_runs(system, exp)[0] if run.models] if system is not None else []
        if system is not None and runs:
            panels.append(Panel(f"{system.label}, T = {t:g}", runs[0].models, t, targets["mean"]))
    if not panels:
        return None
    try:
        phones = dict(enumerate(Lang.load(exp / "lang").phones))
        utterance = read_utterance(exp / "features", gmm, panels, phones, wanted)
    except UserError as error:
        if wanted:
            raise
        logging.warning("no posteriorgram: %s", error)
        results.not_run.append(f"Posteriorgram: {error}")
        return None
    top = "log-mel spectrogram" if utterance.row == "mel filter" else "features"
    caption = (
        f"Test utterance {utterance.name}. Top: {top} with the aligned phones and words. Below: senone "
        "posteriors summed into phones, in the order in which they are spoken; opacity is the square root of the "
        "probability; boxes show the alignment."
    )
    return Drawing("posteriorgram", caption, figures.posteriorgram(utterance), wide=True, group="Posteriorgrams")
