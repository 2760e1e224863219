"""``python -m asr_kd.soft_targets``: average an ensemble's posteriors over a transfer set and store them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_all
from asr_kd.common.storage import Stage, read_json
from asr_kd.soft_targets.config import Config

CUTS_A_SHARD = 200


def main(config: Config) -> None:
    if not config.temperatures or min(config.temperatures) <= 0:
        raise UserError("--temperatures must be positive, at least one: correct the flag")
    if not 1 <= config.draws <= 255:
        raise UserError("--draws must lie between 1 and 255: correct the flag")
    if not 1 <= config.top <= 255 or not 0 <= config.floor < 1:
        raise UserError("--top must lie between 1 and 255, --floor in [0, 1): correct the flag")
    if config.tail == "sampled" and config.floor < 0.004:
        raise UserError("--tail sampled needs a --floor of 0.004 or more: raise it, or choose another --tail")
    stage = Stage("soft_targets", config.out, config, [*config.models, config.features, config.cuts])
    if not stage.begin():
        return
    import numpy as np
    from lhotse import load_manifest_lazy

    from asr_kd.corpora.manifests import count_lines
    from asr_kd.models.checkpoints import load_log_prior
    from asr_kd.soft_targets.compute import Form, ShardJob, make_shard
    from asr_kd.soft_targets.store import INDEX, shard_folder, write_store

    num_pdfs = read_json(config.models[0] / "model.json")["shape"]["num_pdfs"]
    if num_pdfs > 1 << 16:
        raise UserError(f"{num_pdfs} senones do not fit into two bytes a class: use teachers with 65,536 or fewer")
    form = Form(config.temperatures, config.mean, config.top, config.floor, config.tail, config.draws)
    tail = "none" if config.tail in ("sampled", "drawn") else config.tail  # what is drawn leaves no tail
    folders = [shard_folder(config.out, n) for n in range(-(-count_lines(config.cuts) // CUTS_A_SHARD))]
    cuts = iter(load_manifest_lazy(config.cuts))

    def missing() -> Iterator[ShardJob]:
        for number, folder in enumerate(folders):
            shard = list(itertools.islice(cuts, CUTS_A_SHARD))
            if not (folder / INDEX).is_file():
                seed = 1000 * config.seed + number
                yield ShardJob(folder, shard, config.models, config.features, form, seed, config.device)

    with config.executor() as executor:
        for _ in run_all(executor, make_shard, missing(), "soft targets", "shard", len(folders)):
            pass
    frames, size, mass = 0, np.zeros(len(config.temperatures)), np.zeros(len(config.temperatures))
    for index in (read_json(folder / INDEX) for folder in folders):
        frames += sum(index["frames"].values())
        size += index["bytes"]
        mass += index["mass"]
    figures = {
        f"{temperature:g}": {"bytes_a_frame": round(size[i] / frames, 2), "mass_kept": round(mass[i] / frames, 5)}
        for i, temperature in enumerate(config.temperatures)
    }
    prior = np.exp(load_log_prior(config.models[0])).tolist() if tail == "prior" else None
    write_store(
        config.out, len(folders), config.features, config.models, num_pdfs=num_pdfs,
        temperatures=config.temperatures, mean=config.mean, tail=tail, prior=prior,
    )  # fmt: skip
    stage.finish(frames=frames, temperatures=figures)
    for temperature, figure in figures.items():
        print(
            f"soft targets at T = {temperature}: {frames} frames, {figure['bytes_a_frame']:.1f} bytes a frame, "
            f"{100 * figure['mass_kept']:.1f} % of the mass kept"
        )


if __name__ == "__main__":
    run(Config, main)
