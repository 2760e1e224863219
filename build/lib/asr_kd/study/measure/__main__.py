"""``python -m asr_kd.study.measure``: decode the systems of a list and measure their frame accuracy."""

from contextlib import closing

from asr_kd.common.cli import run
from asr_kd.study.measure.config import Config


def main(config: Config) -> None:
    from asr_kd.decode.client import SearchPool
    from asr_kd.score.systems import read_systems
    from asr_kd.study.measure.tasks import measure_tasks
    from asr_kd.study.tasks import run_tasks

    systems = read_systems(config.systems, config.exp, config.variables)
    with closing(SearchPool()) as searches:
        run_tasks(list(measure_tasks(systems, config.conf, searches, config.scheduler)))


if __name__ == "__main__":
    run(Config, main)
