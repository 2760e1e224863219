"""The steps of a study as tasks; networks of neighbouring steps are trained at once."""

import dataclasses
import importlib
import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from asr_kd.common.cli import build_config, read_yaml
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import cpu_count
from asr_kd.common.storage import is_finished, read_json
from asr_kd.models.network import read_network
from asr_kd.score.systems import Names
from asr_kd.soft_targets.config import Config as SoftTargetsConfig
from asr_kd.study.format import STAGES, Step, Study
from asr_kd.study.tasks import Task, count, unless_finished
from asr_kd.train.config import Config as TrainConfig
from asr_kd.train.network import network_of

#: First estimates, measured on one core of an Intel Xeon: seconds of an update per frame, and per frame and parameter;
#: seconds of any other step.
FRAME_SECONDS, PARAMETER_SECONDS, OTHER_SECONDS = 8e-6, 2.6e-11, 30.0
#: Features per frame, for the same estimates.
FEATURES = 40
MAX_TITLE = 100


def step_tasks(study: Study, names: Names, conf: Path, scheduler: str = "") -> Iterator[Task]:
    """A task for each step, and one for all steps that train side by side.

    Args:
        study: the study.
        names: its folders.
        conf: the recipe's configuration.
        scheduler: address of a Dask scheduler; "" for local processes.
    """
    for stage, steps in itertools.groupby(study.steps, key=lambda step: step.stage):
        main = importlib.import_module(f"{STAGES[stage]}.__main__").main
        configs = [_config(step, study, names, conf, scheduler) for step in steps]
        if stage == "train":
            networks = count(sum(len(config.seeds) for config in configs), "network")
            title = f"{networks}: {', '.join(config.out.name for config in configs)}"
            yield Task(_shortened(title), "train", partial(_train_seconds, configs), partial(main, *configs))
            continue
        for config in configs:
            cost = partial(targets_seconds, config) if stage == "soft_targets" else lambda: OTHER_SECONDS
            yield Task(config.out.name, stage, partial(unless_finished, config.out, cost), partial(main, config))


def _config(step: Step, study: Study, names: Names, conf: Path, scheduler: str) -> Any:
    """The stage's dataclass: the recipe's flags, then the step's, then the study's data where neither says."""
    config_class = importlib.import_module(f"{STAGES[step.stage]}.config").Config
    kinds = {field.name: str(field.type) for field in dataclasses.fields(config_class)}
    flags: dict[str, Any] = read_yaml(f"{conf}:{step.section}") if step.section else {}
    for key, value in step.flags.items():
        flags[key] = value
        if "Path" in (kind := kinds.get(key, "")) and value is not None:
            folders = names.folders(value)
            if "tuple" not in kind and len(folders) != 1:
                raise UserError(f"the step {step.name} of the study: {key} is one folder, not {value!r}: correct it")
            flags[key] = folders if "tuple" in kind else folders[0]
    for key, folder in study.systems.data.items():
        if key in kinds:
            flags.setdefault(key, folder / "cuts_train.jsonl.gz" if "models" in kinds and key == "cuts" else folder)
    if "scheduler" in kinds:
        flags["scheduler"] = scheduler
    try:
        return build_config(config_class, {**flags, "out": names.folders(step.name)[0]})
    except UserError as error:
        raise UserError(f"the step {step.name} of the study: {error}") from None


def _train_seconds(configs: list[TrainConfig]) -> float:
    """Seconds for the networks of the configurations that are not trained yet, on the cores of this machine."""
    total = 0.0
    for config in configs:
        left = sum(not is_finished(config.out / f"seed-{seed}") for seed in config.seeds)
        senones, frames = _senones_and_frames(config.cuts)
        per_frame = FRAME_SECONDS + PARAMETER_SECONDS * network_of(config, senones, FEATURES).num_parameters()
        total += left * config.epochs * frames * max(1, len(config.train_cuts)) * per_frame
    return total / cpu_count()


def targets_seconds(config: SoftTargetsConfig) -> float:
    """Seconds for a store: a third of an update per frame and teacher, and a frame's share of one."""
    _, frames = _senones_and_frames(config.cuts.parent)
    trained = [(folder / "model.json").is_file() for folder in config.models]
    sizes = [
        read_network(f).num_parameters() if there else 1.5e6 for f, there in zip(config.models, trained, strict=True)
    ]
    per_frame = FRAME_SECONDS + sum(FRAME_SECONDS + PARAMETER_SECONDS * size / 3 for size in sizes)
    return frames * per_frame / cpu_count()


def _senones_and_frames(cuts: Path) -> tuple[int, float]:
    """Senones and training frames of a folder of labelled cuts; guesses until the step that makes it has run."""
    path = cuts / "hmm.json"
    if not path.is_file():
        return 600, 1e6
    described = read_json(path)
    return described["num_pdfs"], described["splits"]["train"]["frames"]


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TITLE else f"{text[:MAX_TITLE].rpartition(',')[0]}, …"
