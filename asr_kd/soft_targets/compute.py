"""The jobs that compute soft targets, a shard of the store each."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lhotse import MonoCut

from asr_kd.common.storage import read_json
from asr_kd.corpora.cuts import open_cuts
from asr_kd.features.normalise import Normaliser
from asr_kd.losses import Mean, Tail, average_distributions
from asr_kd.models.checkpoints import load_model
from asr_kd.models.device import device_and_dtype
from asr_kd.models.posteriors import check_finite, ensemble_logits
from asr_kd.soft_targets.config import Config
from asr_kd.soft_targets.rows import PROBABILITY, TargetRows
from asr_kd.soft_targets.store import INDEX, write_shard


@dataclasses.dataclass(frozen=True)
class Form:
    """What is stored of an ensemble; see the flags of ``python -m asr_kd.soft_targets``."""

    temperatures: Sequence[float]
    mean: Mean
    top: int
    floor: float
    tail: Tail | Literal["sampled", "drawn"]
    draws: int


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard.

    Attributes:
        folder: of the shard.
        cuts: whose soft targets it contains.
        models: folders of the teachers.
        features: features folder.
        form: what is stored.
        seed: of the random draws.
        device: that the teachers run on.
    """

    folder: Path
    cuts: Sequence[MonoCut]
    models: Sequence[Path]
    features: Path
    form: Form
    seed: int
    device: str = "cpu"


def missing_shards(config: Config, folders: Sequence[Path], cuts_per_shard: int) -> Iterator[ShardJob]:
    """Yield the jobs of the shards that no earlier run has finished."""
    form = Form(config.temperatures, config.mean, config.top, config.floor, config.tail, config.draws)
    cuts = iter(open_cuts(config.cuts))
    for number, folder in enumerate(folders):
        shard = list(itertools.islice(cuts, cuts_per_shard))
        if not (folder / INDEX).is_file():
            seed = 1000 * config.seed + number
            yield ShardJob(folder, shard, config.models, config.features, form, seed, config.device)


def summarise(folders: Sequence[Path], temperatures: Sequence[float]) -> tuple[int, dict[str, dict[str, float]]]:
    """Return the number of frames in finished shards, and for each temperature bytes per frame and mass kept."""
    indices = [read_json(folder / INDEX) for folder in folders]
    frames = sum(sum(index["frames"].values()) for index in indices)
    size, mass = (np.sum([index[key] for index in indices], 0) for key in ("bytes", "mass"))
    return frames, {
        f"{temperature:g}": {"bytes_per_frame": round(size[i] / frames, 2), "mass_kept": round(mass[i] / frames, 5)}
        for i, temperature in enumerate(temperatures)
    }


def make_shard(job: ShardJob) -> None:
    """Compute and write one shard."""
    form = job.form
    device, dtype = device_and_dtype(job.device, "auto")
    models = [load_model(folder, device, dtype) for folder in job.models]
    normaliser = Normaliser.load(job.features)
    generator = torch.Generator().manual_seed(job.seed)
    mass, size = [0.0] * len(form.temperatures), [0] * len(form.temperatures)

    def targets() -> Iterator[tuple[str, list[TargetRows]]]:
        for cut in job.cuts:
            logits = ensemble_logits(models, normaliser(cut))
            rows = []
            for i, temperature in enumerate(form.temperatures):
                average = average_distributions(logits, temperature, form.mean)
                check_finite(average, cut.id)
                if form.tail == "drawn":
                    rows.append(TargetRows.importance_sample(average, form.draws, generator))
                elif form.tail == "sampled":
                    rows.append(TargetRows.threshold_sample(average, form.floor, generator))
                else:
                    rows.append(TargetRows.pack(average, form.top, form.floor, form.tail))
                mass[i] += len(average) - float(PROBABILITY[rows[-1].tails].sum(dtype=np.float64))
                size[i] += rows[-1].nbytes
            yield cut.id, rows

    write_shard(job.folder, form.temperatures, targets(), {"mass": mass, "bytes": size})
