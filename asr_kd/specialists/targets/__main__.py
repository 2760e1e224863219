"""``python -m asr_kd.specialists.targets``: computes soft targets of a generalist with its specialists."""

from __future__ import annotations

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.specialists.targets.config import Config


def main(config: Config) -> None:
    if not config.temperature > 0 or config.likeliest < 1 or not 0.004 <= config.floor <= 1:
        raise UserError("--temperature and --likeliest must be positive, --floor 0.004 to 1: correct the flag")
    if config.more and config.specialists is not None:
        raise UserError("--more generalists and --specialists do not go together: leave one out")
    teachers = [config.generalist, *config.more]
    from asr_kd.specialists.special import folders

    if config.specialists is not None:
        teachers += folders(config.specialists)
    stage = Stage("targets", config.out, config, [*config.folders, *teachers[1:]])
    if not stage.begin():
        return
    from asr_kd.common.parallel import run_all
    from asr_kd.soft_targets.store import INDEX, shard_folder, write_store
    from asr_kd.specialists import source

    examples = source.open_source(config)
    shards = -(-examples.count_blocks("train") // examples.blocks_a_shard)
    missing = [n for n in range(shards) if not (shard_folder(config.out, n) / INDEX).is_file()]
    from asr_kd.specialists.targets.compute import make_shard

    with config.executor() as executor:
        for _ in run_all(executor, make_shard, [(config, teachers, n) for n in missing], "soft targets", "shard"):
            pass
    features = config.images if config.images is not None else config.features
    assert features is not None
    write_store(
        config.out, shards, features, teachers, num_pdfs=len(examples.names), temperatures=[config.temperature],
        mean="specialists", tail="none", prior=None,
    )  # fmt: skip
    stage.finish(shards=shards)


if __name__ == "__main__":
    run(Config, main)
