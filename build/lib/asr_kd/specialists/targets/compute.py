"""Soft targets for one student from the combined distribution of a generalist and its specialists.

The paper left open whether specialists can be distilled back into one network.  The store has the format of
``asr_kd.soft_targets``, so that ``asr_kd.train`` and ``asr_kd.specialists.classify`` can train on it.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from asr_kd.common.parallel import run_all
from asr_kd.losses import CompactTargets
from asr_kd.models.checkpoints import load_model
from asr_kd.models.device import device_and_dtype
from asr_kd.models.posteriors import check_finite, compute_logits
from asr_kd.models.senones import senones_of
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.soft_targets.shards import INDEX, shard_folder, write_shard, write_store
from asr_kd.soft_targets.store import SoftTargets
from asr_kd.specialists.ensemble import Ensemble
from asr_kd.specialists.examples import Block, open_examples
from asr_kd.specialists.targets.config import Config


def write_targets(config: Config, specialists: Sequence[Path]) -> int:
    """Write the store to ``config.out``, shard by shard, and return the number of shards."""
    examples = open_examples(config)
    shards = -(-examples.num_blocks("train") // examples.blocks_per_shard)
    missing = [n for n in range(shards) if not (shard_folder(config.out, n) / INDEX).is_file()]
    with config.executor() as executor:
        jobs = [(config, specialists, number) for number in missing]
        for _ in run_all(executor, _write_shard, jobs, "soft targets", "shard"):
            pass
    features = config.images if config.images is not None else config.features
    assert features is not None
    write_store(
        config.out, shards, features, [config.generalist, *config.more, *specialists], num_classes=len(examples.names),
        temperatures=[config.temperature], mean="specialists", tail="none", prior=None,
        senones=senones_of(config.generalist),
    )  # fmt: skip
    return shards


def _write_shard(job: tuple[Config, Sequence[Path], int]) -> None:
    config, specialists, number = job
    _, dtype = device_and_dtype("cpu", "auto")
    ensemble = Ensemble(config.generalist, specialists, config.top_k, dtype)
    others = [load_model(folder) for folder in config.more]
    generator = torch.Generator().manual_seed(1000 * config.seed + number)

    def rows(block: Block) -> TargetRows:
        q = ensemble(block.inputs, block.chunks).combined
        if others:
            logits = [compute_logits(other, block.inputs, dtype, block.chunks) for other in others]
            q = torch.stack([q, *(rows.softmax(1) for rows in logits)]).mean(0)
        if config.temperature != 1:
            q = q.pow(1 / config.temperature)
            q /= q.sum(1, keepdim=True)
        check_finite(q, block.key)
        return TargetRows.threshold_sample(q, config.floor, generator)

    examples = open_examples(config)
    first = number * examples.blocks_per_shard
    blocks = examples.blocks("train", first, first + examples.blocks_per_shard)
    metadata = {"floor": config.floor}
    write_shard(shard_folder(config.out, number), [config.temperature], ((b.key, [rows(b)]) for b in blocks), metadata)


class ImageTargets:
    """Soft targets of images, by their index in the training images.

    Raises:
        UserError: the store is damaged, or was computed from other images.
    """

    def __init__(self, store: Path, images: Path) -> None:
        targets = SoftTargets(store, images)
        self.temperature = targets.temperature
        self._rows = TargetRows.join([targets.read(key) for key in sorted(targets)])

    def batch(self, index: np.ndarray) -> CompactTargets:
        return self._rows.batch(index)
