"""From the experiment to the page's figures: which ones there are, with their captions."""

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
from asr_kd.common.storage import MARK, read_json
from asr_kd.lang.lang import Lang
from asr_kd.report import figures
from asr_kd.report.collect import Curve, Results, Row
from asr_kd.report.svg import SERIES, render
from asr_kd.report.systems import Experiment, System, find, runs_of
from asr_kd.report.utterance import Panel, read_utterance


@dataclass(frozen=True)
class Drawing:
    """One figure of a page.

    Attributes:
        name: of its files.
        caption: below it.
        figure: Matplotlib's.
        wide: takes the whole width.
        group: drawings of the same one stand under one heading.
    """

    name: str
    caption: str
    figure: Figure
    wide: bool = False
    group: str = "Figures"

    @functools.cached_property
    def svg(self) -> str:
        """For a page."""
        return render(self.figure, self.name)

    def named(self, name: str) -> Drawing:
        """The same under another name."""
        return dataclasses.replace(self, name=name)


def draw(
    experiment: Experiment, systems: Sequence[System], results: Results, curves: Sequence[Curve]
) -> Iterator[Drawing]:
    """All figures but the posteriorgram for which there is something to draw."""
    colours = colours_of(systems)
    yield from table_drawings(results, colours)
    yield from curve_drawings(curves, colours)
    yield from _sweeps(experiment.root, systems, colours)
    yield from _boundaries(experiment.boundaries)


def colours_of(systems: Sequence[System]) -> dict[str, str]:
    """Grey for the GMM, then one colour a system."""
    others = [system.name for system in systems if system.kind != "gmm"]
    colours = {name: SERIES[1 + place % (len(SERIES) - 1)] for place, name in enumerate(others)}
    return {system.name: colours.get(system.name, SERIES[0]) for system in systems}


def table_drawings(results: Results, colours: Mapping[str, str]) -> Iterator[Drawing]:
    """Frame accuracies, and word error rates of each test set."""
    group = "Table 1 as a picture"
    accuracies = [dots for row in results.rows if (dots := _accuracy_dots(row, colours[row.name])) is not None]
    if accuracies:
        caption = "Senones right, of all test frames. Dots: means over seeds; ticks: seeds."
        figure = figures.dot_plot(accuracies, "Test frame accuracy", "frames right, %")
        yield Drawing("frame-accuracy", caption, figure, group=group)
    for split in results.splits:
        rows = [
            figures.Dots(row.label, colours[row.name], words.wer, list(words.seeds.values()), words.low, words.high)
            for row in results.rows
            if (words := row.words.get(split)) is not None
        ]
        if rows and split != "dev":
            caption = f"Word error rate on {split}. Bars: 95 % bootstrap intervals, seeds pooled; ticks: seeds."
            figure = figures.dot_plot(rows, f"WER, {split}", "words wrong, %")
            yield Drawing(f"wer-{split}", caption, figure, group=group)


def _accuracy_dots(row: Row, colour: str) -> figures.Dots | None:
    seeds = list(row.accuracy.get("test", {}).get("all", {}).values())
    return figures.Dots(row.label, colour, fmean(seeds), seeds) if seeds else None


def curve_drawings(curves: Sequence[Curve], colours: Mapping[str, str]) -> Iterator[Drawing]:
    """Accuracy and loss by update."""
    for key, title, unit, caption in (
        ("dev_accuracy", "Dev frame accuracy", "%", "after each epoch"),
        ("dev_loss", "Dev cross-entropy", "nats a frame", "against the aligned senones, at temperature 1"),
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
    """One labelled line a system: the mean over its seeds, as far as all of them go."""
    lines = []
    for name in dict.fromkeys(curve.system for curve in curves):
        own = [curve for curve in curves if curve.system == name]
        drawn = [line for curve in own if (line := _line(curve, key, colours[name])) is not None]
        length = min((len(line.x) for line in drawn), default=0)
        if length:
            y = [fmean(line.y[place] for line in drawn) for place in range(length)]
            lines.append(figures.Series(drawn[0].x[:length], y, colours[name], own[0].label))
    return lines


def _sweeps(exp: Path, systems: Sequence[System], colours: Mapping[str, str]) -> Iterator[Drawing]:
    sweeps = []
    for system in systems:
        folders = [run.decode for run in runs_of(system, exp)[0] if run.decode is not None]
        folder = next((f for f in folders if (f / "sweep_dev.json").is_file()), None)
        if folder is None:
            continue
        best: dict[float, float] = {}
        for point in read_json(folder / "sweep_dev.json")["points"]:
            scale = point["acoustic_scale"]
            best[scale] = min(point["wer"], best.get(scale, point["wer"]))
        chosen = read_json(folder / "tuned.json")
        scales = sorted(best)
        point = (chosen["acoustic_scale"], chosen["wer"])
        wer = [best[scale] for scale in scales]
        sweeps.append(figures.Sweep(system.label, colours[system.name], scales, wer, point))
    if sweeps:
        caption = "Word error rate on dev against acoustic scale, at the best word insertion penalty for each."
        figure = figures.sweep_plot(sweeps, "WER against acoustic scale, dev")
        yield Drawing("acoustic-scale", caption, figure, group="Tuning and alignment")


def _boundaries(folder: Path) -> Iterator[Drawing]:
    """Histogram of the test (else the first) split's signed errors, to 100 ms either side."""
    path = folder / "boundaries.json"
    if not path.is_file():
        return
    found = read_json(path)
    split = "test" if "test" in found else next(iter(found))
    phones = found[split]["phones"]
    errors = np.load(folder / f"boundaries_{split}.npy", allow_pickle=False)
    edges = np.arange(-100.0, 101.0, 5.0)
    counts = np.histogram(np.clip(errors, edges[0], edges[-1]), edges)[0]
    caption = (
        f"Aligned minus true time of {len(errors)} phone boundaries of {split}: the median distance is "
        f"{phones['median_ms']:.1f} ms, and {phones['within_percent']['30']:.0f} % lie within 30 ms (dashed). "
        "The outermost bars hold all that is further away."
    )
    figure = figures.histogram(edges.tolist(), counts.tolist(), "Alignment against truth", "error, ms", (-30, 30))
    yield Drawing("boundaries", caption, figure, group="Tuning and alignment")


def draw_utterance(experiment: Experiment, systems: Sequence[System], results: Results, wanted: str) -> Drawing | None:
    """The posteriorgram: a single network and the student at T = 1, the ensemble at the soft targets' T.

    None, with a line in the report, when the models or the alignment are not there.
    """
    exp = experiment.root
    by_name = {system.name: system for system in systems}
    student = next((s for s in systems if s.kind == "student" and s.twin == results.baseline), None)
    mark = exp / "soft_targets" / MARK
    made: dict[str, Any] = {"temperatures": [1.0], "mean": "arithmetic"}
    if mark.is_file():
        made = read_json(mark)["settings"]
    panels = []
    single, ensemble = by_name.get(results.baseline), by_name.get(results.ensemble)
    for system, t in ((single, 1.0), (ensemble, float(made["temperatures"][0])), (student, 1.0)):
        models = find(exp, system.models)[0] if system is not None else []
        if system is not None and models:
            whole = models if system.kind == "ensemble" else models[:1]
            panels.append(Panel(f"{system.label}, T = {t:g}", tuple(whole), t, made["mean"]))
    if not panels:
        return None
    try:
        phones = dict(enumerate(Lang.load(exp / "lang").phones))
        utterance = read_utterance(exp / "features", experiment.gmm, panels, phones, wanted)
    except UserError as error:
        if wanted:
            raise
        logging.warning("no posteriorgram: %s", error)
        results.not_run.append(f"Posteriorgram: {error}")
        return None
    caption = (
        f"Test utterance {utterance.name}. Top: log-mel spectrogram with the aligned phones and words. Below: senone "
        "posteriors summed into phones, in the order in which they are spoken; opacity is the square root of the "
        "probability; boxes are the alignment."
    )
    return Drawing("posteriorgram", caption, figures.posteriorgram(utterance), wide=True, group="Posteriorgrams")
