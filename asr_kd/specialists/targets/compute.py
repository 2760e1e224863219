"""``python -m asr_kd.specialists.targets``: the combined distribution as soft targets for one student.

The paper left open whether specialists can be distilled back into one network.  Their store has the form of
``asr_kd.soft_targets``, so ``asr_kd.train`` and ``asr_kd.specialists.classify`` learn from it as from any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from asr_kd.losses import CompactTargets
from asr_kd.models.checkpoints import load_model
from asr_kd.models.posteriors import scores
from asr_kd.models.precision import device_and_dtype
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.soft_targets.store import SoftTargets, shard_folder, write_shard
from asr_kd.specialists import source
from asr_kd.specialists.ensemble import Ensemble
from asr_kd.specialists.source import Block
from asr_kd.specialists.targets.config import Config


def make_shard(job: tuple[Config, Sequence[Path], int]) -> None:
    """Compute and write one shard."""
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
        targets = SoftTargets(store, images)
        self.temperature = targets.temperature
        self._rows = TargetRows.join([targets.read(key) for key in sorted(targets)])

    def batch(self, index: np.ndarray) -> CompactTargets:
        return self._rows.batch(index)
