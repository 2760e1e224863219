"""The systems of an experiment, from a YAML list, and the folders that belong to each."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from asr_kd.common.errors import UserError
from asr_kd.common.storage import is_finished

#: gmm: Gaussian mixtures; single: networks trained on hard targets; ensemble: networks whose posteriors are
#: averaged; student: networks trained on soft targets.
KINDS = ("gmm", "single", "ensemble", "student")


@dataclass(frozen=True)
class Experiment:
    """Where the parts of an experiment lie.

    Attributes:
        root: the experiment's folder.
        gmm: aligned cuts and transition model.
        cuts: what was decoded, the reference.
        boundaries: comparison of the alignment with the truth, if there is one.
    """

    root: Path
    gmm: Path
    cuts: Path
    boundaries: Path


@dataclass(frozen=True)
class System:
    """One row of the table.

    Attributes:
        name: what other systems call it (``twin``).
        label: what readers see.
        kind: one of ``KINDS``.
        models: model folders relative to the experiment, wildcards allowed ("student/seed-*").
        decode: decoded folders, likewise; of singles and students one a seed, matched with the model folder
            whose name ends in the same number; of several ensembles of a kind one each.
        accuracy: folders with accuracy.json, matched in the same way; default: the decoded folders.
        twin: the system that it is compared with, seed by seed where both have seeds; "" for none.
    """

    name: str
    label: str
    kind: str
    models: tuple[str, ...] = ()
    decode: tuple[str, ...] = ()
    accuracy: tuple[str, ...] = ()
    twin: str = ""


@dataclass(frozen=True)
class Run:
    """One trained network (or one ensemble, or the GMM) and where it was decoded."""

    seed: int
    models: tuple[Path, ...]
    decode: Path | None
    accuracy: Path | None


def read_systems(path: Path) -> list[System]:
    """The list in a YAML (or JSON) file; each entry has the fields of ``System``.

    Raises:
        UserError: the file is missing or damaged, or an entry makes no sense.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: name the list of systems by --systems") from None
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{path} is not valid YAML ({error}): mend it") from None
    if not isinstance(entries, list) or not entries:
        raise UserError(f"{path} must hold a list of systems: - {{name: …, label: …, kind: …, models: …, decode: …}}")
    systems = [_system(path, entry) for entry in entries]
    names = [system.name for system in systems]
    for system in systems:
        if names.count(system.name) > 1:
            raise UserError(f"{path}: two systems are called {system.name}: give each its own name")
        if system.twin and system.twin not in names:
            raise UserError(f"{path}: the twin {system.twin!r} of {system.name} is not in the list: add or correct it")
    return systems


def _system(path: Path, entry: Any) -> System:
    known = {field.name for field in dataclasses.fields(System)}
    if not isinstance(entry, dict) or not {"name", "kind"} <= set(entry) or not set(entry) <= known:
        raise UserError(f"{path}: the entry {entry!r} needs a name and a kind, and may have {sorted(known)}: mend it")
    if entry["kind"] not in KINDS:
        raise UserError(f"{path}: {entry['name']} has the kind {entry['kind']!r}: choose one of {', '.join(KINDS)}")
    folders = {}
    for field in ("models", "decode", "accuracy"):
        value = entry.get(field) or []
        folders[field] = tuple(str(v) for v in ([value] if isinstance(value, str) else value))
    name = str(entry["name"])
    folders["accuracy"] = folders["accuracy"] or folders["decode"]
    twin = str(entry.get("twin") or "")
    return System(name, str(entry.get("label") or name), entry["kind"], **folders, twin=twin)


def find(exp: Path, patterns: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Finished folders that match, in the order of their numbers, and what was found missing or unfinished."""
    folders: list[Path] = []
    faults: list[str] = []
    for pattern in patterns:
        found = sorted((path for path in exp.glob(pattern) if path.is_dir()), key=natural)
        done = [path for path in found if is_finished(path)]
        folders += done
        faults += [f"{path.relative_to(exp)} is unfinished" for path in found if path not in done]
        if not found:
            faults.append(f"{pattern} is missing")
    return list(dict.fromkeys(folders)), faults


def runs_of(system: System, exp: Path) -> tuple[list[Run], list[str]]:
    """The runs of a system, by seed, and what of it was not run."""
    models, faults = find(exp, system.models)
    decoded, more = find(exp, system.decode)
    measured, less = (decoded, []) if system.accuracy == system.decode else find(exp, system.accuracy)
    faults = faults + more + less
    if system.kind in ("gmm", "ensemble") and max(len(decoded), len(measured)) <= 1:
        whole = Run(0, tuple(models), next(iter(decoded), None), next(iter(measured), None))
        return [whole] if models or decoded or measured else [], faults
    networks, searches, accuracies = map(_by_number, (models, decoded, measured))
    return [
        Run(s, (networks[s],) if s in networks else (), searches.get(s), accuracies.get(s))
        for s in sorted({*networks, *searches, *accuracies})
    ], faults


def baseline_and_ensemble(systems: Sequence[System], exp: Path) -> tuple[System | None, System | None]:
    """The first ensemble, and the single networks that it is made of (else the first single networks)."""
    ensemble = next((s for s in systems if s.kind == "ensemble"), None)
    singles = [s for s in systems if s.kind == "single"]
    members = set(find(exp, ensemble.models)[0]) if ensemble else set()
    own = [s for s in singles if members & set(find(exp, s.models)[0])]
    return next(iter(own or singles), None), ensemble


def _by_number(folders: Sequence[Path]) -> dict[int, Path]:
    """By the number at the end of the name; by place where there is none."""
    numbered = {}
    for place, folder in enumerate(folders):
        number = re.search(r"\d+$", folder.name)
        numbered[int(number.group()) if number else place] = folder
    return numbered


def natural(path: Path | str) -> list[tuple[int, str]]:
    """Sorts seed-10 after seed-9."""
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", str(path))]
