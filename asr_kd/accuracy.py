"""Frame accuracy of networks and ensembles against the forced alignment."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from asr_kd.cli import named, run
from asr_kd.parallel import Workers
from asr_kd.storage import Stage, UserError, read_json, write_json

if TYPE_CHECKING:
    from asr_kd.losses import Mean


@dataclasses.dataclass
class Config(Workers):
    """Share of frames whose likeliest senone is the aligned one: on all frames, and on speech frames."""

    systems: tuple[str, ...]
    """NAME=DIR for a network's folder, NAME=DIR,DIR,... for an ensemble (its members' posteriors are averaged)."""
    features: Path
    """Features folder (made by asr_kd.features)."""
    cuts: Path
    """Folder with cuts_ROLE.jsonl.gz that carry senones (made by asr_kd.hmm)."""
    out: Path
    """Each system's accuracy.json goes to OUT/NAME."""
    roles: tuple[str, ...] = ("dev", "test")
    """Roles to measure."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How an ensemble's posteriors are averaged."""


@dataclasses.dataclass(frozen=True)
class Job:
    """One system: its networks' folders, what to measure them on and how, and the folder of the result."""

    models: tuple[Path, ...]
    features: Path
    cuts: Path
    roles: tuple[str, ...]
    mean: Mean
    out: Path


def main(config: Config) -> None:
    for role in config.roles:
        if not (path := config.cuts / f"cuts_{role}.jsonl.gz").is_file():
            raise UserError(f"{path} is missing: check --roles, or run the alignment of {role}")
    todo: list[tuple[Stage, Job]] = []
    for system in config.systems:
        name, models = named(system, "--systems")
        inputs = [*models, config.features, config.cuts]
        stage = Stage("accuracy", config.out / name, {"roles": config.roles, "mean": config.mean}, inputs)
        if stage.begin():
            todo.append((stage, Job(models, config.features, config.cuts, config.roles, config.mean, stage.out)))
    if not todo:
        return
    from asr_kd.accuracy import measure  # workers know it by this name
    from asr_kd.parallel import run_stages

    with config.executor() as executor:
        run_stages(executor, measure, todo, "frame accuracy", "system")


def measure(job: Job) -> dict[str, Any]:
    """Write counts of right frames by role (asr_kd.score.FrameAccuracy); returns the system's parameters."""
    from lhotse import load_manifest_lazy

    from asr_kd.features import Normaliser
    from asr_kd.models import load_model, posteriors
    from asr_kd.score import FrameAccuracy

    models = [load_model(folder) for folder in job.models]
    normaliser = Normaliser.load(job.features)
    silence = read_json(job.cuts / "hmm.json")["silence_pdfs"]
    results = {}
    for role in job.roles:
        accuracy = FrameAccuracy(silence)
        for cut in load_manifest_lazy(job.cuts / f"cuts_{role}.jsonl.gz"):
            likeliest = posteriors(models, normaliser(cut), mean=job.mean).argmax(1)
            accuracy.update(cut.load_custom("senones"), likeliest)
        results[role] = accuracy.result()
    write_json(job.out / "accuracy.json", results)
    return {"parameters": sum(model.parameters_count() for model in models)}


if __name__ == "__main__":
    run(Config, main)
