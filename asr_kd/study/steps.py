"""Runs the stages of a study, networks of neighbouring steps at once, and tells the time left."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from asr_kd.common.cli import configured, read_yaml
from asr_kd.common.parallel import cpu_count
from asr_kd.common.storage import is_finished, read_json
from asr_kd.decode.__main__ import main
from asr_kd.decode.client import Searches
from asr_kd.decode.config import Config
from asr_kd.models.dnn import Shape, parameters_of
from asr_kd.score.accuracy import __main__ as accuracy
from asr_kd.soft_targets import __main__ as soft_targets
from asr_kd.study.format import STAGES, Measured, Names, Step, Study
from asr_kd.train import __main__ as train
from asr_kd.train.loop import shape_of

#: Seconds on one core of the machine that this was written on, a beginning for the estimates: a frame's share of an
#: update, and that times a parameter; a split to decode; anything else.
FRAME, PRODUCT, DECODED, OTHER = 8e-6, 2.6e-11, 60.0, 30.0


@dataclass(frozen=True)
class Task:
    """One or more calls of a stage that run together.

    Attributes:
        title: for the reader.
        kind: tasks of a kind are expected to be as fast as one another.
        expected: tells the seconds on this machine's cores, by a rough rule; called when all before it has run.
        run: does it.
    """

    title: str
    kind: str
    expected: Callable[[], float]
    run: Callable[[], None]


def run_tasks(tasks: Sequence[Task]) -> None:
    """Run them in order, with a line before each that tells the time left for all."""
    speeds: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])  # by kind: seconds taken, seconds expected
    for number, task in enumerate(tasks):
        left = time_left([(one.kind, one.expected()) for one in tasks[number:]], speeds)
        about = "less than a minute" if left < 60 else f"about {left / 60:.0f} min"
        print(f"\n== {number + 1} of {len(tasks)}: {task.title} ({about} left in all)", flush=True)
        expected, begun = task.expected(), time.monotonic()
        task.run()
        seconds = time.monotonic() - begun
        if seconds > 0.1 * expected > 0:  # else it was done already
            for kind in (task.kind, ""):
                speeds[kind][0] += seconds
                speeds[kind][1] += expected


def time_left(tasks: Sequence[tuple[str, float]], speeds: Mapping[str, Sequence[float]]) -> float:
    """Seconds that (kind, seconds expected) will take, judged by tasks of the same kind that have run, else by all."""
    total = 0.0
    for kind, expected in tasks:
        taken, planned = next((speeds[k] for k in (kind, "") if k in speeds), (1.0, 1.0))
        total += expected * taken / planned
    return total


class Stages:
    """Turns steps and systems into tasks.

    Args:
        study: what to do.
        names: folders of the study.
        conf: the recipe's configuration.
        searches: for decoding; the caller closes them.
        scheduler: address of a Dask cluster's, or nothing.
    """

    def __init__(self, study: Study, names: Names, conf: Path, searches: Searches, scheduler: str = "") -> None:
        self.study, self.names, self.conf, self.searches, self.scheduler = study, names, conf, searches, scheduler

    def tasks(self) -> list[Task]:
        """Everything: steps, frame accuracies, decoding."""
        return [*self._steps(), *self._accuracies(), *self._decoding()]

    def _steps(self) -> Iterator[Task]:
        for stage, steps in itertools.groupby(self.study.steps, key=lambda step: step.stage):
            if stage == "train":
                configs = [self._config(step) for step in steps]
                networks = sum(len(config.seeds) for config in configs)
                title = f"{_count(networks, 'network')}: {', '.join(config.out.name for config in configs)}"
                yield Task(_short(title), "train", partial(_expected, configs), partial(train.main, *configs))
            else:
                main = importlib.import_module(STAGES[stage]).main
                for step in steps:
                    config = self._config(step)
                    cost = partial(targets_seconds, config) if stage == "soft_targets" else lambda: OTHER
                    yield Task(step.name, stage, partial(_unless_done, config.out, cost), partial(main, config))

    def _config(self, step: Step) -> Any:
        """The stage's dataclass: the recipe's flags, then the step's, then the study's data where neither says."""
        config_class = importlib.import_module(STAGES[step.stage]).Config
        kinds = {field.name: str(field.type) for field in dataclasses.fields(config_class)}
        flags: dict[str, Any] = self._section(step.section) if step.section else {}
        for key, value in step.flags.items():
            flags[key] = self._folders(kinds[key], value) if "Path" in kinds.get(key, "") else value
        for key, folder in self.study.data.items():
            if key in kinds:
                flags.setdefault(key, folder / "cuts_train.jsonl.gz" if "models" in kinds and key == "cuts" else folder)
        if "scheduler" in kinds:
            flags["scheduler"] = self.scheduler
        return configured(config_class, {**flags, "out": self.names.folders(step.name)[0]})

    def _section(self, name: str) -> dict[str, Any]:
        return read_yaml(f"{self.conf}:{name}")

    def _folders(self, kind: str, value: Any) -> Any:
        found = self.names.folders(value)
        return found if "tuple" in kind else found[0]

    def _accuracies(self) -> Iterator[Task]:
        runs: dict[tuple[Path, Path, Path], dict[str, Sequence[Path]]] = defaultdict(dict)
        for system in self.study.systems:
            for number, members in enumerate(system.runs):
                out = run_folder("accuracy", self.study, self.names, system, number)
                runs[system.data["features"], system.data["cuts"], out.parent][out.name] = members
        for (features, cuts, out), systems in runs.items():
            config = configured(
                accuracy.Config,
                {
                    **self._section("accuracy"), "features": features, "cuts": cuts, "out": out,
                    "systems": [f"{name}={','.join(map(str, members))}" for name, members in systems.items()],
                    "splits": list(self.study.splits), "scheduler": self.scheduler,
                },
            )  # fmt: skip
            title = f"frame accuracy of {_count(len(systems), 'system')}"
            yield Task(title, "accuracy", partial(_measuring, out, list(systems)), partial(accuracy.main, config))

    def _decoding(self) -> Iterator[Task]:
        decode = partial(main, searches=self.searches)
        runs = [(s, number) for s in self.study.systems for number in range(min(s.decoded, len(s.runs)))]
        if not runs:
            return
        section = self._section("decode")
        data = self.study.data
        tuned = _folder_for(self.study, self.names) / "tuned"
        places = {"graph": data["graph"], "features": data["features"], "scheduler": self.scheduler}
        common = {**section, **places}
        tune = {**common, "model": [self.study.tune], "splits": ["dev"], "tune_on": "dev", "out": tuned}
        cost = partial(_unless_done, tuned, lambda: 4 * DECODED)
        yield Task("tuning of the search", "tune", cost, partial(decode, configured(Config, tune)))
        for system, number in runs:
            out = run_folder("decode", self.study, self.names, system, number)
            flags = {
                **common, **{k: system.data[k] for k in ("graph", "features")}, "model": list(system.runs[number]),
                "splits": list(system.words), "tuned": tuned / "tuned.json", "out": out,
            }  # fmt: skip
            title = f"words of {system.label}, {number + 1} of {system.decoded}"
            cost = partial(_unless_done, out, partial(float, DECODED * len(system.words) / cpu_count()))
            yield Task(title, "decode", cost, partial(decode, configured(Config, flags)))


def run_folder(kind: str, study: Study, names: Names, system: Measured, number: int) -> Path:
    """Where a run of a system is decoded or has its frame accuracy (``kind``): a network of the experiment, on the
    experiment's own data, once for all studies."""
    members = system.runs[number]
    if len(members) > 1 or _of_study(names, *members, *system.data.values()):
        return names.out / kind / f"{system.name}-{number}"
    splits = system.words if kind == "decode" else study.splits
    out = _folder_for(study, names) if kind == "decode" else names.shared
    return out / f"{kind}-{'-'.join(splits)}" / names.name(members[0])


def _folder_for(study: Study, names: Names) -> Path:
    """Where what depends on the tuning goes."""
    assert study.tune is not None
    return names.out if _of_study(names, study.tune, *study.data.values()) else names.shared / names.name(study.tune)


def _of_study(names: Names, *paths: Path) -> bool:
    return any(names.out in path.parents for path in paths)


def _unless_done(folder: Path, seconds: Callable[[], float]) -> float:
    return 0.0 if is_finished(folder) else seconds()


def _measuring(out: Path, names: Sequence[str]) -> float:
    return sum(5.0 for name in names if not is_finished(out / name)) / cpu_count()


def _expected(configs: Sequence[train.Config]) -> float:
    return sum(map(seconds_of, configs))


def seconds_of(config: train.Config) -> float:
    """What the networks of one configuration that are not trained yet may take on this machine's cores."""
    left = sum(not is_finished(config.out / f"seed-{seed}") for seed in config.seeds)
    pdfs, frames = _pdfs_and_frames(config.cuts)
    a_frame = FRAME + PRODUCT * parameters_of(shape_of(config, pdfs))
    return left * config.epochs * frames * max(1, len(config.train_cuts)) * a_frame / cpu_count()


def targets_seconds(config: soft_targets.Config) -> float:
    """What a store may take: a third of an update for each frame and teacher, and a frame's share of one."""
    _, frames = _pdfs_and_frames(config.cuts.parent)
    about = [folder / "model.json" for folder in config.models]
    parameters = [parameters_of(Shape(**read_json(path)["shape"])) if path.is_file() else 1.5e6 for path in about]
    return frames * (FRAME + sum(FRAME + PRODUCT * size / 3 for size in parameters)) / cpu_count()


def _pdfs_and_frames(cuts: Path) -> tuple[int, float]:
    """Senones and training frames of a folder of labelled cuts; guesses until the step that makes it has run."""
    about = cuts / "hmm.json"
    if not about.is_file():
        return 600, 1e6
    described = read_json(about)
    return described["num_pdfs"], described["splits"]["train"]["frames"]


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _short(text: str, most: int = 100) -> str:
    return text if len(text) <= most else f"{text[:most].rpartition(',')[0]}, …"
