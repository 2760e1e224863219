"""``python -m asr_kd.study``: run a named study and report it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from asr_kd.cli import run
from asr_kd.storage import UserError


@dataclass
class Config:
    """Run a study from prepared features: train, measure, decode, report.  What is done already is skipped."""

    study: Path
    """The study's YAML file (recipes/librispeech/studies)."""
    conf: Path
    """Configuration of the recipe, whose sections the study starts from."""
    exp: Path
    """The experiment's folder, with features, senones and graph (made by the recipe's stages 1 to 5)."""
    scheduler: str = ""
    """Address of a Dask scheduler, as tcp://HOST:8786, whose workers do what fans out."""
    command: str = ""
    """Command that made it all, for the report."""


def main(config: Config) -> None:
    from asr_kd.decode.client import Searches
    from asr_kd.study.plan import Names, read_study
    from asr_kd.study.steps import Stages, run_tasks

    if not (config.exp / "features").is_dir():
        raise UserError(f"{config.exp} has no features: run the recipe's stages 1 to 5 first (run.sh --stop-stage 5)")
    out = config.exp / "studies" / config.study.stem
    names = Names(config.exp, out)
    study = read_study(config.study, names)
    with closing(Searches()) as searches:
        run_tasks(Stages(study, names, config.conf, searches, config.scheduler).tasks())

    from asr_kd.study.report import report

    report(study, config.exp, out, config.command)


if __name__ == "__main__":
    run(Config, main)
