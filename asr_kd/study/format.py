"""A study as its YAML file tells it: steps, systems, views.  recipes/librispeech/studies/README.md has the format."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.common.cli import read_yaml
from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.report.systems import KINDS

#: Stages that a study may call, and their modules.
STAGES = {
    "features": "asr_kd.features.__main__",
    "subset": "asr_kd.corpora.subset.__main__",
    "hmm": "asr_kd.hmm.__main__",
    "transfer": "asr_kd.hmm.transfer.__main__",
    "realign": "asr_kd.hmm.realign.__main__",
    "graph": "asr_kd.hmm.graph.__main__",
    "train": "asr_kd.train.__main__",
    "soft_targets": "asr_kd.soft_targets.__main__",
}
#: What networks are trained on and measured with, unless a study or a system says otherwise.
DATA = {"features": "exp/features", "cuts": "exp/gmm", "lang": "exp/lang", "graph": "exp/graph"}


@dataclass(frozen=True)
class Step:
    """One call of a stage.

    Attributes:
        name: its folder's (see ``Names``).
        stage: a key of ``STAGES``.
        section: of the recipe's configuration, whose flags it starts from; "" for none.
        flags: its own.
    """

    name: str
    stage: str
    section: str
    flags: Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """Networks that are measured together, as one row of a table or one point of a figure.

    Attributes:
        name, label, kind, twin: as in asr_kd.report.systems.System.
        group: the part of its name in the YAML file before the first variable of ``each``.
        at: the values of ``each``.
        runs: a list of network folders for every seed; of ensembles, for every draw of members.
        words: splits to decode.
        decoded: so many runs are decoded; the others are only measured frame by frame.
        data: names of the folders features, cuts and graph.
    """

    name: str
    label: str
    kind: str
    group: str
    at: Mapping[str, Any]
    runs: Sequence[Sequence[Path]]
    words: Sequence[str]
    decoded: int
    twin: str
    data: Mapping[str, Path]


@dataclass(frozen=True)
class Names:
    """Folders by their names in a study.

    ``exp/NAME`` is a folder of the experiment, shared with the recipe and other studies; another NAME is the study's.
    ``NAME:0-4`` or ``NAME:0,2`` are the networks of these seeds.
    """

    exp: Path
    out: Path

    @property
    def shared(self) -> Path:
        """For what studies of this experiment share."""
        return self.out.parent / "shared"

    def name(self, network: Path) -> str:
        """Of a network's folder: teachers-0."""
        return f"{network.parent.name}-{network.name.removeprefix('seed-')}"

    def folders(self, names: str | Sequence[str]) -> list[Path]:
        if not isinstance(names, str):
            return [folder for name in names for folder in self.folders(name)]
        name, colon, seeds = names.partition(":")
        base = self.exp / name.removeprefix("exp/") if name.startswith("exp/") else self.out / name
        return [base / f"seed-{seed}" for seed in self._numbers(seeds)] if colon else [base]

    def networks(self, name: str, seeds: Iterable[int]) -> list[Path]:
        """What a step that trains leaves."""
        return self.folders(f"{name}:{','.join(map(str, seeds))}")

    @staticmethod
    def _numbers(text: str) -> list[int]:
        """0-2,5 as 0, 1, 2, 5."""
        found: list[int] = []
        for part in text.split(","):
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
            if match is None:
                raise UserError(f"{text!r} are no seeds: write NAME:0-4 or NAME:0,2")
            found += range(int(match[1]), int(match[2] or match[1]) + 1)
        return found


@dataclass(frozen=True)
class Study:
    """A study, with every ``each`` filled in.

    Attributes:
        tune: network whose acoustic scale and insertion penalty, chosen on dev, hold for all; None: nothing is decoded.
        gain: names of the system that gains are counted from (without it: from each student's twin), and of the one
            that has gained the whole.
        splits: that frame accuracy is measured on.
        data: folders of features, cuts, lang and graph, where neither a step nor a system names others.
    """

    title: str
    intro: str
    steps: Sequence[Step]
    systems: Sequence[Measured]
    views: Sequence[Mapping[str, Any]]
    tune: Path | None
    gain: Sequence[str]
    splits: Sequence[str]
    data: Mapping[str, Path]


def read_study(path: Path, names: Names) -> Study:
    """Read a study's YAML file.

    Raises:
        UserError: it is missing or damaged, lacks something, or has something unknown.
    """
    content = read_yaml(str(path))
    known = {"title", "intro", "data", "splits", "tune", "gain", "steps", "systems", "views"}
    _check(path, content, known, {"title", "steps", "systems"})
    data = {**DATA, **content.get("data", {})}
    further = _further(names.exp / "data" / "summary.json")
    splits = _splits(content.get("splits", ["dev", "test"]), further)
    try:
        steps = [_step(path, one) for entry in content["steps"] for _, one in _each(entry)]
        systems = [
            _system(path, entry, at, one, names, data, splits, further)
            for entry in content["systems"] for at, one in _each(entry)
        ]  # fmt: skip
    except (KeyError, IndexError) as error:
        raise UserError(f"{path}: {error} is not a variable of each: mend the braces") from None
    for kind, things in (("step", steps), ("system", systems)):
        used = [thing.name for thing in things]
        if twice := next((name for name in used if used.count(name) > 1), None):
            raise UserError(f"{path}: two {kind}s are called {twice}: give each its own name")
    labels = {system.name for system in systems}
    gain = content.get("gain", [])
    for name in [*gain, *(system.twin for system in systems if system.twin)]:
        if name not in labels:
            raise UserError(f"{path}: there is no system {name}: mend gain or twin")
    tune = names.folders(content["tune"])[0] if "tune" in content else None
    if tune is None and any(system.decoded for system in systems):
        raise UserError(f"{path}: to decode, tune must name a network: add it, or give all systems decoded: 0")
    trained = {
        network for step in steps if step.stage == "train"
        for network in names.networks(step.name, step.flags.get("seeds", (0,)))
    }  # fmt: skip
    used_by = {run: system.name for system in systems for runs in system.runs for run in runs}
    for network, name in (used_by if tune is None else used_by | {tune: "tune"}).items():
        if network not in trained and not network.is_dir():
            raise UserError(
                f"{path}: {name} needs {names.name(network)}, which no step trains: mend the name, or add a step"
            )
    return Study(
        content["title"], content.get("intro", ""), steps, systems, content.get("views", ()), tune,
        gain, splits, _folders(names, data),
    )  # fmt: skip


def _step(path: Path, entry: Mapping[str, Any]) -> Step:
    flags = dict(entry)
    _check(path, flags, None, {"name", "stage"})
    name, stage = str(flags.pop("name")), flags.pop("stage")
    if stage not in STAGES:
        raise UserError(f"{path}: {name} has the stage {stage!r}: choose one of {', '.join(STAGES)}")
    return Step(name, stage, flags.pop("conf", ""), flags)


def _system(
    path: Path, template: Mapping[str, Any], at: Mapping[str, Any], entry: Mapping[str, Any], names: Names,
    data: Mapping[str, str], splits: Sequence[str], further: Sequence[str],
) -> Measured:  # fmt: skip
    known = {"name", "label", "kind", "runs", "words", "decoded", "twin", "data"}
    _check(path, entry, known, {"name", "kind", "runs"})
    if entry["kind"] not in KINDS:
        raise UserError(f"{path}: {entry['name']} has the kind {entry['kind']!r}: choose one of {', '.join(KINDS)}")
    given = [entry["runs"]] if isinstance(entry["runs"], str) else entry["runs"]
    if entry["kind"] == "ensemble":
        runs = [names.folders(members) for members in given]
    else:
        runs = [[folder] for folder in names.folders(given)]
    group = str(template["name"]).partition("{")[0].rstrip("-_")
    words = entry.get("words", [split for split in splits if split != "dev"])
    return Measured(
        str(entry["name"]), str(entry.get("label", entry["name"])), entry["kind"], group, at, runs,
        _splits(words, further), int(entry.get("decoded", len(runs))), str(entry.get("twin", "")),
        _folders(names, {**data, **entry.get("data", {})}),
    )  # fmt: skip


def _folders(names: Names, data: Mapping[str, str]) -> dict[str, Path]:
    return {key: names.folders(name)[0] for key, name in data.items()}


def _further(summary: Path) -> list[str]:
    """The experiment's test sets beside test."""
    return [split for split in read_json(summary) if split not in ("train", "dev", "test")] if summary.is_file() else []


def _splits(given: Sequence[str], further: Sequence[str]) -> tuple[str, ...]:
    """``also`` stands for all further test sets."""
    return tuple(split for one in given for split in (further if one == "also" else [one]))


def _check(path: Path, entry: Any, known: set[str] | None, needed: set[str]) -> None:
    if not isinstance(entry, dict) or not needed <= set(entry) or (known is not None and not set(entry) <= known):
        allowed = f", and may have {', '.join(sorted(known))}" if known else ""
        raise UserError(f"{path}: {entry!r} needs {', '.join(sorted(needed))}{allowed}: mend it")


def _each(entry: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """The entry for every value of its ``each``: a mapping of lists stands for all combinations, a list for itself."""
    each = entry.pop("each", None) if isinstance(entry, dict) else None
    if each is None:
        yield {}, entry
    elif isinstance(each, dict):
        for values in itertools.product(*each.values()):
            at = dict(zip(each, values, strict=True))
            yield at, _filled(entry, at)
    else:
        for at in each:
            yield at, _filled(entry, at)


def _filled(value: Any, at: Mapping[str, Any]) -> Any:
    """``value`` with {variables} filled in; a text that is nothing but a variable takes its value of any kind."""
    if isinstance(value, str):
        whole = re.fullmatch(r"\{(\w+)\}", value)
        return at[whole[1]] if whole else value.format(**at)
    if isinstance(value, dict):
        return {key: _filled(one, at) for key, one in value.items()}
    return [_filled(one, at) for one in value] if isinstance(value, list) else value
