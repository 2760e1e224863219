"""``python -m asr_kd.specialists.report``: reports a study of specialists."""

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage
from asr_kd.specialists.files import specialist_folders
from asr_kd.specialists.report.config import Config


def main(config: Config) -> None:
    inputs = [*config.results, config.clusters, *specialist_folders(config.specialists)]
    inputs += [config.words] if config.words is not None else []
    stage = Stage("report", config.out, {"command": config.command}, inputs)
    if not stage.begin():
        return
    from asr_kd.report.sections import write_report
    from asr_kd.specialists.report.figures import drawings
    from asr_kd.specialists.report.tables import TITLE, sections

    write_report(config.out, TITLE, list(sections(config)), drawings(config), config.command)
    stage.finish()


if __name__ == "__main__":
    run(Config, main)
