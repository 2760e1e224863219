"""Tables and figures of a study: those that every study has, and those that its YAML file asks for."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.report import tables
from asr_kd.report.draw import Drawing, colours_of, curve_drawings, table_drawings
from asr_kd.report.sections import Section
from asr_kd.report.svg import SERIES
from asr_kd.score.collect import Curve, Results, Row
from asr_kd.score.systems import System
from asr_kd.score.tables import COMPARISON_NOTES, Table, comparisons
from asr_kd.study.figures import Spread, spread_plot
from asr_kd.study.format import Study
from asr_kd.study.shows import UNITS

SPREAD = "Dots: means over seeds; ticks: seeds."


class Views:
    """The tables and figures of a study.

    Args:
        study: the study.
        results: what was measured.
        curves: reads the training logs of some systems.
    """

    def __init__(self, study: Study, results: Results, curves: Callable[[Sequence[System]], list[Curve]]) -> None:
        self.study, self.systems, self.curves = study, study.systems.systems, curves
        in_grids = {view["group"] for view in study.views if view.get("show") == "grid"}
        hidden = {system.name for system in self.systems if system.group in in_grids}
        self.rows = {row.name: row for row in results.rows}
        self.comparisons = replace(results, comparisons=[c for c in results.comparisons if c.seed is None])
        self.results = replace(results, rows=[row for row in results.rows if row.name not in hidden])
        self.colours = colours_of([system for system in self.systems if system.name not in hidden])

    def sections(self) -> Iterator[Section]:
        """Table 1, the grids, and the paired comparisons."""
        if self.results.rows:
            yield Section("Systems", tables.NOTES, tables.table_one(self.results))
        for view in self.study.views:
            if view.get("show") == "grid":
                yield self._grid(view)
        if self.comparisons.comparisons:
            yield Section("Paired comparisons", COMPARISON_NOTES, comparisons(self.comparisons))

    def drawings(self) -> Iterator[Drawing]:
        """The grids, lines and curves that the study asks for, and Table 1 as pictures."""
        for number, view in enumerate(self.study.views):
            if view.get("show") == "lines":
                yield self._lines(f"lines-{number}", view)
            elif view.get("show") == "splits":
                yield self._splits(f"splits-{number}", view)
            elif view.get("show") == "epochs":
                shown = [system for system in self.systems if self._group(system.name) in view["groups"]]
                yield from curve_drawings(self.curves(shown), colours_of(shown))
            else:
                yield self._grid_lines(f"grid-{number}", view)
        yield from table_drawings(self.results, self.colours)

    def _group(self, name: str) -> str:
        return next(system.group for system in self.systems if system.name == name)

    def _of_group(self, group: str) -> list[tuple[System, Row]]:
        found = [(s, self.rows[s.name]) for s in self.systems if s.group == group and s.name in self.rows]
        if not found:
            raise UserError(
                f"a view shows the group {group}, but none of its systems was measured: mend the study's file"
            )
        return found

    def _grid(self, view: Mapping[str, Any]) -> Section:
        """A table by two variables of ``each``, with means over seeds ± their standard deviation."""
        down, across, cells = self._cells(view)
        header = [f"{view['rows']} ↓, {view['columns']} →", *map(str, across)]
        rows = [[str(d), *(tables.spread(cells.get((d, a), {})) for a in across)] for d in down]
        return Section(view["title"], _unit(view["y"]), Table(header, rows))

    def _grid_lines(self, name: str, view: Mapping[str, Any]) -> Drawing:
        """One line per row of the grid, over its columns."""
        down, across, cells = self._cells(view)
        lines = []
        for place, d in enumerate(down):
            at = [x for x, a in enumerate(across) if cells.get((d, a))]
            seeds = [list(cells[d, across[x]].values()) for x in at]
            lines.append(Spread(at, seeds, SERIES[place % len(SERIES)], f"{view['rows']} = {d}"))
        title, names = view["title"], [str(a) for a in across]
        figure = spread_plot(lines, title, view.get("x_unit", view["columns"]), _unit(view["y"]), names=names)
        return Drawing(name, view.get("caption", SPREAD), figure)

    def _cells(self, view: Mapping[str, Any]) -> tuple[list[Any], list[Any], dict[tuple[Any, Any], dict[int, float]]]:
        """Values of the variable of the rows, of the variable of the columns, and the results by seed of each cell."""
        found = self._of_group(view["group"])
        down, across = (list(dict.fromkeys(s.at[view[key]] for s, _ in found)) for key in ("rows", "columns"))
        return down, across, {(s.at[view["rows"]], s.at[view["columns"]]): values(row, view["y"]) for s, row in found}

    def _lines(self, name: str, view: Mapping[str, Any]) -> Drawing:
        lines = []
        for place, (label, group) in enumerate(view["lines"].items()):
            points = sorted(
                (fmean(at.values()), list(y.values()))
                for system, row in self._of_group(group)
                if (at := _place(system, row, view["x"])) and (y := values(row, view["y"]))
            )
            colour = SERIES[1 + place % (len(SERIES) - 1)]
            lines.append(Spread([x for x, _ in points], [seeds for _, seeds in points], colour, label))
        units = view.get("x_unit", _unit(view["x"])), _unit(view["y"])
        figure = spread_plot(lines, view["title"], *units, log=bool(view.get("log")))
        return Drawing(name, view.get("caption", SPREAD), figure)

    def _splits(self, name: str, view: Mapping[str, Any]) -> Drawing:
        """One line per system, over splits on which the same thing was measured."""
        lines = []
        for row in self.results.rows:
            found = [values(row, f"{view['y']}/{split}") for split in view["splits"].values()]
            if all(found):
                seeds = [list(at.values()) for at in found]
                lines.append(Spread(range(len(found)), seeds, self.colours[row.name], row.label))
        names = list(view["splits"])
        figure = spread_plot(lines, view["title"], view.get("x_unit", ""), UNITS[view["y"]], names=names)
        return Drawing(name, view.get("caption", SPREAD), figure)


def values(row: Row, what: str) -> dict[int, float]:
    """A result of a row by seed: accuracy/SPLIT, speech/SPLIT, merged/SPLIT, wer/SPLIT, rtf/SPLIT, scoring/SPLIT or
    parameters."""
    kind, _, split = what.partition("/")
    if kind == "wer":
        return dict(row.words[split].seeds) if split in row.words else {}
    if kind in ("rtf", "scoring"):
        factors = row.rtf if kind == "rtf" else row.scoring
        return {0: factors[split]} if split in factors else {}
    if kind == "parameters":
        return {} if row.parameters is None else {0: float(row.parameters)}
    return row.accuracy.get(split, {}).get({"accuracy": "all"}.get(kind, kind), {})


def _place(system: System, row: Row, x: str) -> dict[int, float]:
    return {0: float(system.at[x])} if x in system.at else values(row, x)


def _unit(what: str) -> str:
    kind, _, split = what.partition("/")
    return f"{split}: {UNITS.get(kind, kind)}" if split else UNITS.get(kind, kind)
