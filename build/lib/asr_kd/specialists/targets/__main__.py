"""``python -m asr_kd.specialists.targets``: computes soft targets of a generalist with its specialists."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.specialists.files import specialist_folders
from asr_kd.specialists.targets.config import Config


def main(config: Config) -> None:
    if config.more and config.specialists is not None:
        raise UserError("--more generalists cannot be combined with --specialists: leave one out")
    specialists = specialist_folders(config.specialists) if config.specialists is not None else []
    inputs = [*config.inputs, *config.more, *specialists]
    stage = Stage("targets", config.out, config, inputs, elsewhere=["shard-*/*.npy"])
    if not stage.begin():
        return
    from asr_kd.specialists.targets.compute import write_targets

    stage.finish(shards=write_targets(config, specialists))


if __name__ == "__main__":
    run(Config, main)
