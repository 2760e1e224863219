"""``python -m asr_kd.report``: a finished experiment as tables, JSON and a page."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, is_finished
from asr_kd.report.config import Config


def main(config: Config) -> None:
    from asr_kd.score.systems import read_systems

    if not config.exp.is_dir():
        raise UserError(f"{config.exp} does not exist: give the experiment's folder as --exp")
    systems = read_systems(config.systems, config.exp, config.variables).systems
    score = config.score or config.exp / "score"
    folders = [
        path
        for path in sorted([*config.exp.iterdir(), *config.exp.glob("bundle/*")])
        if path.resolve() != config.out.resolve()
    ]
    boundaries = (config.boundaries or config.exp / "boundaries") / "boundaries.json"
    inputs = [config.systems, score, *filter(is_finished, folders), *([boundaries] if boundaries.is_file() else [])]
    stage = Stage("report", config.out, config, inputs)
    if not stage.begin():
        return
    from asr_kd.report.build import build

    stage.finish(**build(config, systems, score))


if __name__ == "__main__":
    run(Config, main)
