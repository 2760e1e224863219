"""``python -m asr_kd.study``: run a study and report it."""

from contextlib import closing

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.study.config import Config


def main(config: Config) -> None:
    if not (config.exp / "features").is_dir():
        raise UserError(f"{config.exp} has no features: run the recipe's stages 1 to 5 first (run.sh --stop-stage 5)")
    from asr_kd.decode.client import SearchPool
    from asr_kd.score.systems import Names
    from asr_kd.study.format import read_study
    from asr_kd.study.measure.tasks import measure_tasks
    from asr_kd.study.page import report
    from asr_kd.study.steps import step_tasks
    from asr_kd.study.tasks import run_tasks

    names = Names(config.exp, config.exp / "studies" / config.study.stem)
    study = read_study(config.study, names)
    with closing(SearchPool()) as searches:
        steps = step_tasks(study, names, config.conf, config.scheduler)
        run_tasks([*steps, *measure_tasks(study.systems, config.conf, searches, config.scheduler)])
    report(study, names, config.command)


if __name__ == "__main__":
    run(Config, main)
