"""``python -m asr_kd.specialists.targets``: computes soft targets of a generalist with its specialists."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.specialists.files import specialist_folders
from asr_kd.specialists.targets.config import Config


def main(config: Config) -> None:
    if not config.temperature > 0 or config.top_k < 1 or not 0.004 <= config.floor <= 1:
        raise UserError("--temperature and --top-k must be positive, and --floor from 0.004 to 1: correct the flag")
    if config.more and config.specialists is not None:
        raise UserError("--more generalists cannot be combined with --specialists: leave one out")
    specialists = specialist_folders(config.specialists) if config.specialists is not None else []
    stage = Stage("targets", config.out, config, [*config.inputs, *config.more, *specialists])
    if not stage.begin():
        return
    from asr_kd.specialists.targets.compute import write_targets

    stage.finish(shards=write_targets(config, specialists))


if __name__ == "__main__":
    run(Config, main)
