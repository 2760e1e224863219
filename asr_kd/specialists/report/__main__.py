"""``python -m asr_kd.specialists.report``: reports a study of specialists."""

from __future__ import annotations

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage
from asr_kd.specialists.report.config import Config


def main(config: Config) -> None:
    from asr_kd.specialists.special import folders

    inputs = [*config.results, config.clusters, *folders(config.specialists)]
    inputs += [config.words] if config.words is not None else []
    stage = Stage("report", config.out, {"command": config.command}, inputs)
    if not stage.begin():
        return
    from asr_kd.report.sections import write_report
    from asr_kd.specialists.report.tables import TITLE, _pictures, tables

    write_report(config.out, TITLE, list(tables(config)), _pictures(config), config.command)
    stage.finish()


if __name__ == "__main__":
    run(Config, main)
