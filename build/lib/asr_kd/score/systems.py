"""The systems of a table: their networks, and where each network is decoded and measured.

A list of systems is a YAML file (recipes/librispeech/conf/systems.yaml, or a study's).  Decoding, scoring, the report
and the plan of a run all read the same list.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from asr_kd.common.cli import read_yaml
from asr_kd.common.errors import UserError
from asr_kd.common.storage import is_finished, read_json
from asr_kd.score.entries import (
    ENTRIES,
    ENTRIES_OR_NONE,
    MAPPING,
    NUMBER,
    RUNS,
    TEXT,
    TEXTS,
    TEXTS_OR_NONE,
    check_keys,
    check_names,
    expand_each,
    one_of,
)

#: gmm: Gaussian mixtures; adapted: its twin, a GMM, adapted to the speakers by what that recognised; single: networks
#: trained on hard targets; ensemble: networks whose posteriors are averaged; student: networks trained on soft targets.
KINDS = ("gmm", "adapted", "single", "ensemble", "student")
GMMS = KINDS[:2]
#: Folders that networks are trained on and measured with, unless the file says otherwise.
DATA = {"features": "exp/features", "cuts": "exp/gmm", "lang": "exp/lang", "graph": "exp/graph"}
#: Keys of a file, those of studies among them, and keys of one system.
FILE_KEYS = {
    "title": TEXT, "intro": TEXT, "variables": MAPPING, "data": MAPPING, "splits": TEXTS, "tune": TEXT, "gain": TEXTS,
    "steps": ENTRIES, "systems": ENTRIES, "views": ENTRIES_OR_NONE,
}  # fmt: skip
SYSTEM_KEYS = {
    "name": TEXT, "label": TEXT, "kind": one_of(*KINDS), "runs": RUNS, "decode": TEXTS_OR_NONE, "decoded": NUMBER,
    "further": NUMBER, "tune": TEXT, "twin": TEXT, "data": MAPPING,
}  # fmt: skip
#: A network needs minutes, so a list of more seeds is a slip.
MAX_SEEDS = 10_000


@dataclass(frozen=True)
class Run:
    """One network, one ensemble, or the GMM.

    Attributes:
        seed: seed of the network; of ensembles, its place in the list.
        models: folders of the networks.
        decode: folder of its hypotheses; None: it is not decoded.
        accuracy: folder of its frame accuracy; None: it is not measured.
        splits: splits to decode.
    """

    seed: int
    models: tuple[Path, ...] = ()
    decode: Path | None = None
    accuracy: Path | None = None
    splits: tuple[str, ...] = ()


@dataclass(frozen=True)
class System:
    """One row of a table, or one point of a figure.

    Attributes:
        name: what other systems call it (``twin``).
        label: its name for readers.
        kind: one of ``KINDS``.
        runs: its networks, one run per seed; for ensembles, one run per ensemble.
        twin: the system that it is compared with, seed by seed where both have seeds; "" for none.
        tune: network on which acoustic scale and word insertion penalty are tuned for this system.
        tuned: folder of that tuning.
        data: folders of features, cuts, lang and graph.
        group: the part of its name in the file before the first variable of ``each``.
        at: the values of ``each``.
    """

    name: str
    label: str
    kind: str
    runs: tuple[Run, ...]
    twin: str = ""
    tune: Path | None = None
    tuned: Path | None = None
    data: Mapping[str, Path] = field(default_factory=dict)
    group: str = ""
    at: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SystemList:
    """A list of systems, with every ``each`` and every variable filled in.

    Attributes:
        systems: the systems, in the order of the table.
        splits: splits on which frame accuracy is measured.
        tune: network on which acoustic scale and word insertion penalty are tuned; None: nothing is decoded.
        data: folders of features, cuts, lang and graph, where a system does not name others.
    """

    systems: Sequence[System]
    splits: tuple[str, ...]
    tune: Path | None
    data: Mapping[str, Path]


@dataclass(frozen=True)
class Names:
    """Folders by their names in the file.

    ``exp/NAME`` is a folder of the experiment, shared with the recipe and other studies; another NAME is a folder of
    ``out``.  ``NAME:0-4``, ``NAME:0,2`` and ``NAME:<5`` are the networks of these seeds.
    """

    exp: Path
    out: Path

    @property
    def shared(self) -> Path:
        """Folder of what the studies of this experiment share."""
        return self.out.parent / "shared"

    def name(self, network: Path) -> str:
        """Name of a network's folder, as teachers-0."""
        return f"{network.parent.name}-{network.name.removeprefix('seed-')}"

    def folders(self, names: Any) -> list[Path]:
        """The folders of a name, or of the names in a list."""
        if isinstance(names, list | tuple):
            return [folder for name in names for folder in self.folders(name)]
        name, colon, seeds = str(names).partition(":")
        base = self.exp / name.removeprefix("exp/") if name.startswith("exp/") else self.out / name
        return [base / f"seed-{seed}" for seed in self._seeds(seeds)] if colon else [base]

    def networks(self, name: str, seeds: Iterable[int]) -> list[Path]:
        """Folders of the networks that a training step writes."""
        return self.folders(f"{name}:{','.join(map(str, seeds))}")

    def belongs(self, *paths: Path) -> bool:
        """Whether one of the paths lies in ``out``."""
        return any(self.out in path.parents for path in paths)

    @staticmethod
    def _seeds(text: str) -> list[int]:
        """0-2,5 as 0, 1, 2, 5; <3 as 0, 1, 2."""
        seeds: list[int] = []
        below = re.fullmatch(r"<([0-9]+)", text)
        for part in [f"0-{int(below[1]) - 1}"] if below else text.split(","):
            match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part)
            found = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
            if not 0 < len(found) <= MAX_SEEDS:
                raise UserError(f"{text!r} are no seeds: write NAME:0-4, NAME:0,2 or NAME:<5")
            seeds += found
        return seeds


def read_systems(path: Path, exp: Path, variables: Sequence[str] = ()) -> SystemList:
    """The list of systems in a YAML file of the recipe, whose folders are those of the experiment.

    Args:
        path: the file.
        exp: the experiment's folder.
        variables: NAME=VALUE each, in place of the file's own values.

    Raises:
        UserError: the file is missing or damaged, lacks something, or has something unknown.
    """
    content = read_yaml(str(path))
    check_keys(path, content, FILE_KEYS, {"systems"})
    return build_systems(path, content, Names(exp, exp), variables)


def build_systems(path: Path, content: Mapping[str, Any], names: Names, variables: Sequence[str] = ()) -> SystemList:
    """The list of systems in the content of a YAML file.  See ``read_systems``."""
    known = _variables(path, content.get("variables", {}), variables)
    summary = names.exp / "data" / "summary.json"
    further = [s for s in read_json(summary) if s not in ("train", "dev", "test")] if summary.is_file() else []
    splits = _splits(content.get("splits", ["dev", "test"]), further)
    data = {**DATA, **_data(path, content)}
    tune = names.folders(content["tune"])[0] if "tune" in content else None
    defaults = SystemList((), splits, tune, {key: names.folders(name)[0] for key, name in data.items()})
    systems = [
        _system(path, template, at, entry, names, defaults, further)
        for template in content["systems"]
        for at, entry in expand_each(path, template, known)
    ]
    check_names(path, "system", [system.name for system in systems])
    for twin in filter(None, (system.twin for system in systems)):
        if twin not in {system.name for system in systems}:
            raise UserError(f"{path}: there is no system {twin}: mend gain or twin")
    gmms = {system.name for system in systems if system.kind == "gmm"}
    for system in systems:
        if system.kind == "adapted" and system.twin not in gmms:
            raise UserError(
                f"{path}: {system.name} is adapted, so its twin must be a system of the kind gmm: correct it"
            )
    if any(run.decode and not system.tune for system in systems for run in system.runs):
        raise UserError(f"{path}: to decode, tune must name a network: add it, or give all systems decoded: 0")
    return SystemList(systems, splits, tune, defaults.data)


def _variables(path: Path, defaults: Mapping[str, Any], given: Sequence[str]) -> dict[str, Any]:
    values = dict(defaults)
    for text in given:
        name, _, value = text.partition("=")
        if name not in defaults or not value:
            raise UserError(f"--variables {text!r} is not NAME=VALUE with a variable of {path}: {', '.join(defaults)}")
        values[name] = int(value) if value.isdigit() else value
    return values


def _data(path: Path, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """The folders that an entry names."""
    data: Mapping[str, Any] = entry.get("data", {})
    if unknown := sorted(set(map(str, data)) - set(DATA)):
        raise UserError(f"{path}: data has unknown keys ({', '.join(unknown)}): it may have {', '.join(DATA)}")
    return data


def _splits(given: Sequence[str], further: Sequence[str]) -> tuple[str, ...]:
    """``also`` stands for the further test sets of the experiment."""
    return tuple(split for one in given for split in (further if one == "also" else [one]))


def _system(
    path: Path, template: Mapping[str, Any], at: Mapping[str, Any], entry: Mapping[str, Any], names: Names,
    defaults: SystemList, further: Sequence[str],
) -> System:  # fmt: skip
    check_keys(path, entry, SYSTEM_KEYS, {"name", "kind", "runs"})
    name, kind = str(entry["name"]), entry["kind"]
    given = [entry["runs"]] if isinstance(entry["runs"], str) else entry["runs"]
    members = [names.folders(one) for one in given] if kind == "ensemble" else [[f] for f in names.folders(given)]
    data = dict(defaults.data) | {key: names.folders(one)[0] for key, one in _data(path, entry).items()}
    splits = _splits(entry.get("decode", [split for split in defaults.splits if split != "dev"]), further)
    decoded = int(entry.get("decoded", len(members)))
    with_further = int(entry.get("further", decoded))
    tune, tuned = defaults.tune, _tuning_folder(names, defaults) / "tuned"
    if "tune" in entry:
        owner = entry.get("twin", name) if kind == "adapted" else name  # the scale of a GMM holds for both its passes
        tune, tuned = names.folders(entry["tune"])[0], names.out / f"tuned-{owner}"
    runs = []
    for number, models in enumerate(members):
        own = tuple(split for split in splits if number < with_further or split not in further)
        # A network of the experiment, on the experiment's own data, is measured once for all studies.
        shared = len(models) == 1 and not names.belongs(*models, *data.values())
        place = f"{name}-{number}"
        decode = names.out / "decode" / place
        accuracy = names.out / "accuracy" / place
        if shared:
            decode = _tuning_folder(names, defaults) / f"decode-{'-'.join(own)}" / names.name(models[0])
            accuracy = names.shared / f"accuracy-{'-'.join(defaults.splits)}" / names.name(models[0])
        seed = re.fullmatch(r"seed-(\d+)", models[0].name) if len(models) == 1 else None
        runs.append(
            Run(
                int(seed[1]) if seed else number, tuple(models), decode if number < decoded else None,
                accuracy if kind not in GMMS else None, own,
            )
        )  # fmt: skip
    group = str(template["name"]).partition("{")[0].rstrip("-_")
    label, twin = str(entry.get("label", name)), str(entry.get("twin", ""))
    return System(name, label, kind, tuple(runs), twin, tune, tuned, data, group, at)


def _tuning_folder(names: Names, defaults: SystemList) -> Path:
    """Folder of what depends on the tuning: shared by all studies where network and data are the experiment's."""
    if defaults.tune is None or names.belongs(defaults.tune, *defaults.data.values()):
        return names.out
    return names.shared / names.name(defaults.tune)


def finished_runs(system: System, exp: Path) -> tuple[list[Run], list[str]]:
    """The runs of a system as far as their folders are finished, and a line about each that is not."""
    runs, faults = [], []
    for run in system.runs:
        wanted = [*run.models, *(folder for folder in (run.decode, run.accuracy) if folder is not None)]
        done = {folder: is_finished(folder) for folder in wanted}
        for folder in (folder for folder, ready in done.items() if not ready):
            name = folder.relative_to(exp) if exp in folder.parents else folder
            faults.append(f"{name} is {'unfinished' if folder.is_dir() else 'missing'}")
        models = run.models if all(done[folder] for folder in run.models) else ()
        decode, accuracy = (f if f is not None and done[f] else None for f in (run.decode, run.accuracy))
        if models or decode or accuracy:
            runs.append(Run(run.seed, models, decode, accuracy, run.splits))
    return runs, list(dict.fromkeys(faults))
