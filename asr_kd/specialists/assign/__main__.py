"""``python -m asr_kd.specialists.assign``: assigns classes to specialists (section 5.3)."""

from __future__ import annotations

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, save_array, write_json
from asr_kd.specialists.assign.config import Config


def main(config: Config) -> None:
    if config.rounds < 1:
        raise UserError("--rounds must be positive: correct the flag")
    stage = Stage("assign", config.out, config, config.folders)
    if not stage.begin():
        return
    from asr_kd.common.progress import progress
    from asr_kd.models.checkpoints import load_model
    from asr_kd.models.posteriors import scores
    from asr_kd.models.precision import device_and_dtype
    from asr_kd.specialists import source

    examples = source.open_source(config)
    model = load_model(config.generalist)
    _, dtype = device_and_dtype("cpu", "auto")
    from asr_kd.specialists.clusters import Confusions, Covariance

    kind = Covariance if config.by == "covariance" else Confusions
    counted = kind(len(examples.names))
    for block in progress(examples.blocks("train"), "predictions", examples.count_blocks("train"), "block"):
        counted.add(scores(model, block.inputs, dtype).softmax(1), block.labels)
    likeness = counted.matrix()
    seeds = range(config.seed, config.seed + config.rounds)
    from asr_kd.specialists.clusters import cluster

    groups = [group for seed in seeds for group in cluster(likeness, config.count, config.method, seed, config.size)]
    save_array(config.out / "likeness.npy", likeness.astype("float32"))
    named = [[examples.names[c] for c in group] for group in groups]
    from asr_kd.specialists.assign.clusters_file import CLUSTERS

    write_json(config.out / CLUSTERS, {"clusters": [group.tolist() for group in groups], "names": named})
    sizes = [len(group) for group in groups]
    stage.finish(specialists=len(groups), largest=max(sizes), smallest=min(sizes))
    for number, names in enumerate(named[:5]):
        print(f"specialist {number}: {len(names)} classes: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}")


if __name__ == "__main__":
    run(Config, main)
