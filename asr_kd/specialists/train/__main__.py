"""``python -m asr_kd.specialists.train``: trains the specialists (section 5.2)."""

from __future__ import annotations

import shutil

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.specialists.train.config import Config


def main(config: Config) -> None:
    if not 0 <= config.soft_weight <= 1 or config.epochs < 1 or config.batch_size < 1 or not 0 <= config.dropout < 1:
        raise UserError("--soft-weight must lie in [0, 1], --dropout in [0, 1), --epochs and --batch-size be positive")
    from asr_kd.specialists.assign.clusters_file import load_clusters

    groups = load_clusters(config.clusters)
    from asr_kd.specialists.special import folder_of

    wanted = [folder_of(config.out, number) for number in range(len(groups))]
    from asr_kd.specialists.special import folders

    for left in set(folders(config.out)) - set(wanted):  # of an earlier, finer clustering
        shutil.rmtree(left)
    inputs = [*config.folders, config.clusters]
    stages = []
    for number, classes in enumerate(groups):
        stage = Stage("specialist", wanted[number], config, inputs, {"classes": classes})
        stages.append((stage, (config, number, classes)))
    todo = [item for item in stages if item[0].begin()]
    if not todo:
        return
    from asr_kd.common.parallel import run_stages
    from asr_kd.specialists.train.training import train_specialist

    with config.executor(len(stages)) as executor:
        run_stages(executor, train_specialist, todo, "specialists", "specialist")


if __name__ == "__main__":
    run(Config, main)
