"""``python -m asr_kd.specialists.assign``: which classes go to which specialist (section 5.3)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from asr_kd.cli import run
from asr_kd.specialists import source
from asr_kd.specialists.clusters import Confusions, Covariance, Method, cluster
from asr_kd.storage import Stage, UserError, read_json, save_array, write_json

CLUSTERS = "clusters.json"


@dataclasses.dataclass(kw_only=True)
class Config(source.Config):
    """Cluster the classes by a generalist's predictions for the training examples.

    Labels are not needed, but by --by confusions.
    """

    out: Path
    """Folder for clusters.json and likeness.npy."""
    count: int = 30
    """Clusters, and specialists, a round."""
    size: int = 0
    """Classes of each specialist, those most like its cluster, so that a class may have several specialists or none;
    0: each class has the one of its cluster."""
    rounds: int = 1
    """Clusterings from different beginnings; with more than one, classes have several specialists."""
    method: Method = "kmeans"
    """kmeans (on-line, as in the paper), spectral or agglomerative."""
    by: Literal["covariance", "confusions"] = "covariance"
    """covariance of the predictions, as in the paper; or confusions, for comparison."""
    seed: int = 0
    """Of the beginnings of kmeans and spectral."""


def main(config: Config) -> None:
    if config.rounds < 1:
        raise UserError("--rounds must be positive: correct the flag")
    stage = Stage("assign", config.out, config, config.folders)
    if not stage.begin():
        return
    from asr_kd.models import device_and_dtype, load_model, scores
    from asr_kd.parallel import progress

    examples = source.open_source(config)
    model = load_model(config.generalist)
    _, dtype = device_and_dtype("cpu", "auto")
    kind = Covariance if config.by == "covariance" else Confusions
    counted = kind(len(examples.names))
    for block in progress(examples.blocks("train"), "predictions", examples.count_blocks("train"), "block"):
        counted.add(scores(model, block.inputs, dtype).softmax(1), block.labels)
    likeness = counted.matrix()
    seeds = range(config.seed, config.seed + config.rounds)
    groups = [group for seed in seeds for group in cluster(likeness, config.count, config.method, seed, config.size)]
    save_array(config.out / "likeness.npy", likeness.astype("float32"))
    named = [[examples.names[c] for c in group] for group in groups]
    write_json(config.out / CLUSTERS, {"clusters": [group.tolist() for group in groups], "names": named})
    sizes = [len(group) for group in groups]
    stage.finish(specialists=len(groups), largest=max(sizes), smallest=min(sizes))
    for number, names in enumerate(named[:5]):
        print(f"specialist {number}: {len(names)} classes: {', '.join(names[:12])}{' …' if len(names) > 12 else ''}")


def load_clusters(folder: Path) -> list[list[int]]:
    """Classes of each specialist."""
    return read_json(folder / CLUSTERS)["clusters"]


if __name__ == "__main__":
    run(Config, main)
