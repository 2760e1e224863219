"""Computes the soft targets of some cuts, in a process of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lhotse import MonoCut

from asr_kd.features.normalise import Normaliser
from asr_kd.losses import Mean, Tail, average_distributions
from asr_kd.models.checkpoints import load_model
from asr_kd.models.device import device_and_dtype
from asr_kd.models.posteriors import ensemble_logits
from asr_kd.soft_targets.rows import PROBABILITY, TargetRows
from asr_kd.soft_targets.store import write_shard


@dataclasses.dataclass(frozen=True)
class Form:
    """What is kept of the ensemble; see the flags of ``python -m asr_kd.soft_targets``."""

    temperatures: Sequence[float]
    mean: Mean
    top: int
    floor: float
    tail: Tail | Literal["sampled", "drawn"]
    draws: int


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """One shard: its folder, cuts, teachers, features folder, form, seed of random draws, and where teachers run."""

    folder: Path
    cuts: Sequence[MonoCut]
    models: Sequence[Path]
    features: Path
    form: Form
    seed: int
    device: str = "cpu"


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
                if form.tail == "drawn":
                    rows.append(TargetRows.sample(average, form.draws, generator))
                elif form.tail == "sampled":
                    rows.append(TargetRows.thin(average, form.floor, generator))
                else:
                    rows.append(TargetRows.pack(average, form.top, form.floor, form.tail))
                mass[i] += len(average) - float(PROBABILITY[rows[-1].tails].sum(dtype=np.float64))
                size[i] += rows[-1].nbytes
            yield cut.id, rows

    write_shard(job.folder, form.temperatures, targets(), {"mass": mass, "bytes": size})
