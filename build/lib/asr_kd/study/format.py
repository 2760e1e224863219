"""A study as its YAML file describes it: steps, systems, views (format: docs/studies.md)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.common.cli import read_yaml
from asr_kd.common.errors import UserError
from asr_kd.score.entries import TEXT, check_keys, check_names, expand_each, one_of
from asr_kd.score.systems import FILE_KEYS, GMMS, Names, SystemList, build_systems
from asr_kd.study.shows import check_views

#: Stages that a study may call, and their packages.
STAGES = {
    "features": "asr_kd.features",
    "subset": "asr_kd.corpora.subset",
    "hmm": "asr_kd.hmm",
    "transfer": "asr_kd.hmm.transfer",
    "realign": "asr_kd.hmm.realign",
    "graph": "asr_kd.hmm.graph",
    "decode": "asr_kd.decode",
    "adapt": "asr_kd.hmm.adapt",
    "adapted_features": "asr_kd.hmm.features",
    "train": "asr_kd.train",
    "soft_targets": "asr_kd.soft_targets",
}


@dataclass(frozen=True)
class Step:
    """One call of a stage.

    Attributes:
        name: name of its folder (see ``Names``).
        stage: a key of ``STAGES``.
        section: section of the recipe's configuration with the flags to start from; "" for none.
        flags: its own flags.
    """

    name: str
    stage: str
    section: str
    flags: Mapping[str, Any]


@dataclass(frozen=True)
class Study:
    """A study, with every ``each`` filled in.

    Attributes:
        steps: calls of stages, in order.
        systems: what is decoded, measured and compared.
        views: tables and figures.
        gain: names of the systems without and with the whole gain (see ``collect`` in asr_kd.score).
    """

    title: str
    intro: str
    steps: Sequence[Step]
    systems: SystemList
    views: Sequence[Mapping[str, Any]]
    gain: Sequence[str]


def read_study(path: Path, names: Names) -> Study:
    """Read a study's YAML file.

    Raises:
        UserError: it is missing or damaged, lacks something, or has something unknown.
    """
    content = read_yaml(str(path))
    check_keys(path, content, FILE_KEYS, {"title", "steps", "systems"})
    steps = [_step(path, one) for entry in content["steps"] for _, one in expand_each(path, entry, {})]
    check_names(path, "step", [step.name for step in steps])
    systems = build_systems(path, content, names)
    gain = content.get("gain", [])
    for name in gain:
        if name not in {system.name for system in systems.systems}:
            raise UserError(f"{path}: there is no system {name}: mend gain or twin")
    _check_trained(path, steps, systems, names)
    views = content.get("views", [])
    check_views(path, views, systems.systems)
    return Study(str(content["title"]), str(content.get("intro", "")), steps, systems, views, gain)


def _step(path: Path, entry: Mapping[str, Any]) -> Step:
    check_keys(path, entry, {"name": TEXT, "stage": one_of(*STAGES), "conf": TEXT}, {"name", "stage"}, others=True)
    flags = dict(entry)
    name, stage = str(flags.pop("name")), flags.pop("stage")
    return Step(name, stage, flags.pop("conf", ""), flags)


def _check_trained(path: Path, steps: Sequence[Step], systems: SystemList, names: Names) -> None:
    """Every network of a system is trained by a step, or there already."""
    trained = {
        network for step in steps if step.stage == "train"
        for network in names.networks(step.name, _as_list(step.flags.get("seeds", 0)))
    }  # fmt: skip
    for network, name in _networks(systems):
        if network not in trained and not network.is_dir():
            raise UserError(
                f"{path}: {name} needs {names.name(network)}, which no step trains: mend the name, or add a step"
            )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _networks(systems: SystemList) -> Iterator[tuple[Path, str]]:
    for system in systems.systems:
        if system.kind not in GMMS:  # the experiment has the GMM
            yield from ((model, system.name) for run in system.runs for model in run.models)
    if systems.tune is not None:
        yield systems.tune, "tune"
