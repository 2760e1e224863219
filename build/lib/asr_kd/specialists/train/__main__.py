"""``python -m asr_kd.specialists.train``: trains the specialists (section 5.2)."""

import shutil

from asr_kd.common.cli import run
from asr_kd.common.parallel import run_stages
from asr_kd.common.storage import Stage
from asr_kd.specialists.files import load_clusters, specialist_folder, specialist_folders
from asr_kd.specialists.train.config import Config


def main(config: Config) -> None:
    groups = load_clusters(config.clusters)
    folders = [specialist_folder(config.out, number) for number in range(len(groups))]
    for outdated in set(specialist_folders(config.out)) - set(folders):  # from a clustering with more groups
        shutil.rmtree(outdated)
    inputs = [*config.inputs, config.clusters]
    stages = [
        (Stage("specialist", folder, config, inputs, {"classes": classes}), (config, number, classes))
        for number, (folder, classes) in enumerate(zip(folders, groups, strict=True))
    ]
    todo = [item for item in stages if item[0].begin()]
    if not todo:
        return
    from asr_kd.specialists.train.training import train_specialist

    with config.executor(len(stages)) as executor:
        run_stages(executor, train_specialist, todo, "specialists", "specialist")


if __name__ == "__main__":
    run(Config, main)
