"""``python -m asr_kd.score.accuracy``: frame accuracy of networks and ensembles."""

from asr_kd.common.cli import parse_system, run
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_stages
from asr_kd.common.storage import Stage
from asr_kd.score.accuracy.config import Config


def main(config: Config) -> None:
    for split in config.splits:
        if not (path := config.cuts / f"cuts_{split}.jsonl.gz").is_file():
            raise UserError(f"{path} is missing: check --splits, or run the alignment of {split}")
    stages = []
    for system in config.systems:
        name, models = parse_system(system, "--systems")
        inputs = [*models, config.features, config.cuts]
        stage = Stage("accuracy", config.out / name, {"splits": config.splits, "mean": config.mean}, inputs)
        if stage.begin():
            stages.append((stage, models))
    if not stages:
        return
    from asr_kd.score.accuracy.measure import Job, measure

    todo = [
        (stage, Job(models, config.features, config.cuts, config.splits, config.mean, stage.out))
        for stage, models in stages
    ]
    with config.executor() as executor:
        run_stages(executor, measure, todo, "frame accuracy", "system")


if __name__ == "__main__":
    run(Config, main)
