"""``python -m asr_kd.specialists.classify``: trains a generalist or a student on images."""

from asr_kd.common.cli import run
from asr_kd.common.parallel import run_stages
from asr_kd.common.storage import Stage
from asr_kd.specialists.classify.config import Config


def main(config: Config) -> None:
    inputs = [config.images, *(path for path in (config.start_from, config.soft_targets) if path is not None)]
    stages = [
        (Stage("classify", config.out / f"seed-{seed}", config, inputs, {"seeds": seed}), (config, seed))
        for seed in config.seeds
    ]
    todo = [item for item in stages if item[0].begin()]
    if not todo:
        return
    from asr_kd.specialists.classify.training import train_network

    with config.executor(len(stages)) as executor:
        run_stages(executor, train_network, todo, "networks", "network")


if __name__ == "__main__":
    run(Config, main)
