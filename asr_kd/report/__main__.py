"""Stage ``python -m asr_kd.report``: a finished experiment as tables, JSON and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, is_finished
from asr_kd.report.config import Config
from asr_kd.report.facts import STAGES
from asr_kd.report.systems import Experiment, System, find, read_systems


def main(config: Config) -> None:
    if not config.exp.is_dir():
        raise UserError(f"{config.exp} does not exist: give the experiment's folder as --exp")
    experiment = Experiment(
        root=config.exp,
        gmm=config.gmm or config.exp / "gmm",
        cuts=config.cuts or config.exp / "features",
        boundaries=config.boundaries or config.exp / "boundaries",
    )
    systems = read_systems(config.systems)
    stage = Stage("report", config.out, config, [config.systems, *_inputs(experiment, systems)])
    if not stage.begin():
        return
    from asr_kd.report.build import build

    stage.finish(**build(config, experiment, systems))


def _inputs(experiment: Experiment, systems: Sequence[System]) -> list[Path]:
    """What the report depends on, as far as it is there."""
    folders = [experiment.root / name for name in STAGES] + [experiment.gmm, experiment.cuts]
    found = find(experiment.root, [p for s in systems for p in (*s.models, *s.decode, *s.accuracy)])[0]
    boundaries = experiment.boundaries / "boundaries.json"
    return [*filter(is_finished, dict.fromkeys(folders + found)), *([boundaries] if boundaries.is_file() else [])]


if __name__ == "__main__":
    run(Config, main)
