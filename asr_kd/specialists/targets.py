"""``python -m asr_kd.specialists.targets``: the combined distribution as soft targets for one student.

The paper left open whether specialists can be distilled back into one network.  Their store has the form of
``asr_kd.soft_targets``, so ``asr_kd.train`` and ``asr_kd.specialists.classify`` learn from it as from any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.cli import run
from asr_kd.parallel import Workers
from asr_kd.specialists import source
from asr_kd.specialists.special import folders
from asr_kd.storage import Stage, UserError

if TYPE_CHECKING:
    from asr_kd.losses import CompactTargets
    from asr_kd.specialists.source import Block


@dataclasses.dataclass(kw_only=True)
class Config(Workers, source.Config):
    """Write soft targets for the training examples."""

    more: tuple[Path, ...] = ()
    """Further generalists, whose probabilities are averaged with its own (without --clusters)."""
    specialists: Path | None = None
    """Folder that asr_kd.specialists.train filled; none: generalists alone."""
    out: Path
    """Folder of the store."""
    likeliest: int = 1
    """So many of the generalist's likeliest classes choose which specialists have a say."""
    temperature: float = 1.0
    """The combined distribution is raised to the power of 1/T, and scaled to one again."""
    floor: float = 0.02
    """Classes that reach this probability are kept; of the others a random few (asr_kd.soft_targets)."""
    seed: int = 0
    """Of the random few."""


def main(config: Config) -> None:
    if not config.temperature > 0 or config.likeliest < 1 or not 0.004 <= config.floor <= 1:
        raise UserError("--temperature and --likeliest must be positive, --floor 0.004 to 1: correct the flag")
    if config.more and config.specialists is not None:
        raise UserError("--more generalists and --specialists do not go together: leave one out")
    teachers = [config.generalist, *config.more]
    if config.specialists is not None:
        teachers += folders(config.specialists)
    stage = Stage("targets", config.out, config, [*config.folders, *teachers[1:]])
    if not stage.begin():
        return
    from asr_kd.parallel import run_all
    from asr_kd.soft_targets.store import INDEX, shard_folder, write_store
    from asr_kd.specialists.targets import make_shard  # not from __main__, which workers cannot import

    examples = source.open_source(config)
    shards = -(-examples.count_blocks("train") // examples.blocks_a_shard)
    missing = [n for n in range(shards) if not (shard_folder(config.out, n) / INDEX).is_file()]
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


def make_shard(job: tuple[Config, Sequence[Path], int]) -> None:
    """Compute and write one shard."""
    import torch

    from asr_kd.models import device_and_dtype, load_model, scores
    from asr_kd.soft_targets.rows import TargetRows
    from asr_kd.soft_targets.store import shard_folder, write_shard
    from asr_kd.specialists.ensemble import Ensemble

    config, teachers, number = job
    _, dtype = device_and_dtype("cpu", "auto")
    generalists = 1 + len(config.more)
    ensemble = Ensemble(teachers[0], teachers[generalists:], config.likeliest, dtype)
    others = [load_model(folder) for folder in config.more]
    generator = torch.Generator().manual_seed(1000 * config.seed + number)

    def rows(block: Block) -> TargetRows:
        q = ensemble(block.inputs).combined
        if others:
            q = torch.stack([q, *(scores(other, block.inputs, dtype).softmax(1) for other in others)]).mean(0)
        if config.temperature != 1:
            q = q.pow(1 / config.temperature)
            q /= q.sum(1, keepdim=True)
        return TargetRows.thin(q, config.floor, generator)

    examples = source.open_source(config)
    first = number * examples.blocks_a_shard
    mine = examples.blocks("train", first, first + examples.blocks_a_shard)
    about = {"floor": config.floor}
    write_shard(shard_folder(config.out, number), [config.temperature], ((b.key, [rows(b)]) for b in mine), about)


class ImageTargets:
    """Soft targets of images, by their index among the training images.

    Raises:
        UserError: the store was made from other images, or is damaged.
    """

    def __init__(self, store: Path, images: Path) -> None:
        from asr_kd.soft_targets.rows import TargetRows
        from asr_kd.soft_targets.store import SoftTargets

        targets = SoftTargets(store, images)
        self.temperature = targets.temperature
        self._rows = TargetRows.join([targets.read(key) for key in sorted(targets)])

    def batch(self, index: np.ndarray) -> CompactTargets:
        return self._rows.batch(index)


if __name__ == "__main__":
    run(Config, main)
