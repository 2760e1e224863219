"""``python -m asr_kd.soft_targets``: average the posteriors of teachers over a transfer set and store them."""

from asr_kd.common.cli import run
from asr_kd.common.parallel import run_all
from asr_kd.common.storage import Stage
from asr_kd.soft_targets.config import Config, check

CUTS_PER_SHARD = 200


def main(config: Config) -> None:
    check(config)
    heard = [config.features] if config.student_features is None else [config.features, config.student_features]
    inputs = [*config.models, *config.posteriors, *heard, config.cuts]
    stage = Stage("soft_targets", config.out, config, inputs, elsewhere=["shard-*/*.npy"])
    if not stage.begin():
        return
    from asr_kd.corpora.manifests import count_lines
    from asr_kd.soft_targets.compute import Teachers, make_shard, missing_shards, summarise
    from asr_kd.soft_targets.writer import Writer

    teachers = Teachers.of(config)
    writer = Writer(config.out, **teachers.settings)
    shards = -(-count_lines(config.cuts) // CUTS_PER_SHARD)
    with config.executor() as executor:
        jobs = missing_shards(config, teachers, shards, CUTS_PER_SHARD)
        for _ in run_all(executor, make_shard, jobs, "soft targets", "shard", shards):
            pass
    skipped = writer.finish(heard[-1], config.models, teachers.senones, shards)
    frames, figures = summarise(config.out, shards, config.temperatures)
    stage.finish(frames=frames, temperatures=figures, skipped=len(skipped))
    for temperature, figure in figures.items():
        print(
            f"soft targets at T = {temperature}: {frames} frames, {figure['bytes_per_frame']:.1f} bytes per frame, "
            f"{100 * figure['mass_kept']:.1f} % of the probability mass kept"
        )
    if skipped:
        first, reason = next(iter(skipped.items()))
        print(
            f"{len(skipped)} utterances have no soft targets and are left out in training: see "
            f"{config.out / 'skipped.tsv'} (the first: {first}: {reason})"
        )


if __name__ == "__main__":
    run(Config, main)
