"""``python -m asr_kd.train``: train teachers (hard targets) and students (soft targets, hard targets, or both)."""

import functools
import os
from collections.abc import Sequence

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_stages
from asr_kd.common.storage import Stage
from asr_kd.train.config import Config, check, cuts_of, training_cuts


def main(*configs: Config) -> None:
    """Train the networks of all ``configs``, as many at a time as there are cores."""
    stages: list[tuple[Stage, tuple[Config, int]]] = []
    for config in configs:
        check(config)
        inputs = [config.features, *training_cuts(config), cuts_of(config, "dev")]
        inputs += [path for path in (config.start_from, config.soft_targets, config.lattices) if path is not None]
        inputs += [*config.teachers, *config.posteriors]
        for seed in config.seeds:
            stage = Stage("train", config.out / f"seed-{seed}", config, inputs, {"seeds": seed})
            stages.append((stage, (config, seed)))
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        _train_in_process_group(stages)
        return
    todo = [item for item in stages if item[0].begin()]
    if not todo:
        return
    from asr_kd.train.loop import train_network

    # The number of threads follows from all networks, not from those that are left: it can change the last digit of a
    # sum, and a resumed run must end with the same figures.
    with configs[0].executor(len(stages), configs[0].resources) as executor:
        run_stages(executor, train_network, todo, "training", "network")


def _train_in_process_group(stages: Sequence[tuple[Stage, tuple[Config, int]]]) -> None:
    """Train one network after the other, each by all processes that torchrun has started."""
    from asr_kd.common import distributed
    from asr_kd.train.loop import train_network

    with distributed.process_group(stages[0][1][0].device) as rank:
        for stage, (config, seed) in stages:
            if config.lattices is not None and rank.size > 1:
                raise UserError("--lattices trains a network in one process: start it without torchrun")
            if config.streams < rank.size and not config.tensor_parallel:
                raise UserError(
                    f"--streams {config.streams} is too small for {rank.size} processes: give at least {rank.size}"
                )
            if distributed.broadcast_from_first(stage.begin):
                figures = train_network((config, seed))
                distributed.broadcast_from_first(functools.partial(stage.finish, **figures))


if __name__ == "__main__":
    run(Config, main, separator="--and")
