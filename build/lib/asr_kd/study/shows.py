"""What the views of a study may show, checked before anything is trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.score.entries import MAPPING, SWITCH, TEXT, TEXTS, check_keys, one_of
from asr_kd.score.systems import System

#: Axis labels of what a view may show.
UNITS = {
    "accuracy": "frame accuracy, %",
    "speech": "frame accuracy on speech, %",
    "merged": "frame accuracy with silences merged, %",
    "wer": "WER, %",
    "rtf": "real-time factor",
    "scoring": "real-time factor of scoring",
    "parameters": "parameters",
}
#: Keys of each kind of view: those that it needs, and those that it may have.
SHOWS = {
    "grid": ({"title", "group", "rows", "columns", "y"}, {"x_unit", "caption"}),
    "lines": ({"title", "x", "y", "lines"}, {"x_unit", "log", "caption"}),
    "splits": ({"title", "y", "splits"}, {"x_unit", "caption"}),
    "epochs": ({"groups"}, set[str]()),
}
KINDS = {"show": one_of(*SHOWS), "log": SWITCH, "lines": MAPPING, "splits": MAPPING, "groups": TEXTS}


def check_views(path: Path, views: Sequence[Mapping[str, Any]], systems: Sequence[System]) -> None:
    """Check the views of a study's file.

    Raises:
        UserError: a view has unknown keys or lacks some, or shows a group, a variable or a result that there is not.
    """
    groups = {system.group: set(system.at) for system in systems}
    for view in views:
        check_keys(path, view, {"show": KINDS["show"]}, {"show"}, others=True)
        needed, more = SHOWS[view["show"]]
        kinds = {key: KINDS.get(key, TEXT) for key in ("show", *sorted(needed | more))}
        check_keys(path, view, kinds, {"show", *needed})
        shown = [view["group"]] if "group" in view else view.get("groups", list(view.get("lines", {}).values()))
        if unknown := [str(group) for group in shown if group not in groups]:
            raise UserError(f"{path}: there is no group {unknown[0]}: name one of {', '.join(sorted(groups))}")
        for key in ("rows", "columns"):
            if key in view and view[key] not in groups[view["group"]]:
                raise UserError(f"{path}: {view[key]!r} is no variable of the group {view['group']}: mend {key}")
        variables = {name for group in shown for name in groups[group]}
        for key in ("x", "y"):
            known = UNITS if key == "y" else {*UNITS, *variables}
            if key in view and str(view[key]).partition("/")[0] not in known:
                raise UserError(f"{path}: {key} is {view[key]!r}: name one of {', '.join(sorted(known))}")
