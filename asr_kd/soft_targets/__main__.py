"""``python -m asr_kd.soft_targets``: average an ensemble's posteriors over a transfer set and store them."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_all
from asr_kd.common.storage import Stage, read_json
from asr_kd.soft_targets.config import Config, check

CUTS_PER_SHARD = 200


def main(config: Config) -> None:
    check(config)
    inputs = [*config.models, config.features, config.cuts]
    stage = Stage("soft_targets", config.out, config, inputs, elsewhere=["shard-*/*.npy"])
    if not stage.begin():
        return
    import numpy as np

    from asr_kd.corpora.manifests import count_lines
    from asr_kd.models.checkpoints import load_log_prior
    from asr_kd.models.front_end import check_same_front_end
    from asr_kd.models.senones import check_same_senones, senones_of
    from asr_kd.soft_targets.compute import make_shard, missing_shards, summarise
    from asr_kd.soft_targets.store import shard_folder, write_store

    num_pdfs = read_json(config.models[0] / "model.json")["shape"]["num_pdfs"]
    if num_pdfs > 1 << 16:
        raise UserError(f"the teachers have {num_pdfs} senones: the store takes teachers with at most 65,536")
    for model in config.models[1:]:
        check_same_senones(config.models[0], model)
    check_same_front_end(config.models, config.features)
    folders = [shard_folder(config.out, n) for n in range(-(-count_lines(config.cuts) // CUTS_PER_SHARD))]
    with config.executor() as executor:
        jobs = missing_shards(config, folders, CUTS_PER_SHARD)
        for _ in run_all(executor, make_shard, jobs, "soft targets", "shard", len(folders)):
            pass
    tail = "none" if config.tail in ("sampled", "drawn") else config.tail  # random draws leave no tail
    prior = np.exp(load_log_prior(config.models[0])).tolist() if tail == "prior" else None
    write_store(
        config.out, len(folders), config.features, config.models, num_pdfs=num_pdfs,
        temperatures=config.temperatures, mean=config.mean, tail=tail, prior=prior,
        senones=senones_of(config.models[0]),
    )  # fmt: skip
    frames, figures = summarise(folders, config.temperatures)
    stage.finish(frames=frames, temperatures=figures)
    for temperature, figure in figures.items():
        print(
            f"soft targets at T = {temperature}: {frames} frames, {figure['bytes_per_frame']:.1f} bytes per frame, "
            f"{100 * figure['mass_kept']:.1f} % of the probability mass kept"
        )


if __name__ == "__main__":
    run(Config, main)
