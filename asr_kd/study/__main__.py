"""``python -m asr_kd.study``: run a named study and report it."""

from __future__ import annotations

from contextlib import closing

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.study.config import Config


def main(config: Config) -> None:
    from asr_kd.decode.client import Searches
    from asr_kd.study.format import Names, read_study
    from asr_kd.study.steps import Stages, run_tasks

    if not (config.exp / "features").is_dir():
        raise UserError(f"{config.exp} has no features: run the recipe's stages 1 to 5 first (run.sh --stop-stage 5)")
    out = config.exp / "studies" / config.study.stem
    names = Names(config.exp, out)
    study = read_study(config.study, names)
    with closing(Searches()) as searches:
        run_tasks(Stages(study, names, config.conf, searches, config.scheduler).tasks())

    from asr_kd.study.page import report

    report(study, config.exp, out, config.command)


if __name__ == "__main__":
    run(Config, main)
