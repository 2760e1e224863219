"""Compares ways to treat the classes that a compact soft target leaves out, by students of stores of equal size.

    python tools/study_tail.py --exp recipes/librispeech/exp/embedded --out /tmp/tail

For each form, the experiment's teachers write a store, and students of several seeds are trained on it with the flags
of the recipe's student.  The "dense" students get their soft targets from the teachers during training.  The results
are the frame accuracy, and KL(ensemble ‖ student) at the temperature of the store, on dev and test.
"""

from __future__ import annotations

import bisect
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bench
import numpy as np
import torch
from lhotse import CutSet
from torch.nn import functional as F

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import cpu_count
from asr_kd.common.progress import progress
from asr_kd.common.storage import stage_figures
from asr_kd.features.normalise import Normaliser
from asr_kd.losses import average_distributions
from asr_kd.models.checkpoints import load_model
from asr_kd.models.posteriors import ensemble_logits
from asr_kd.soft_targets.rows import MAX_CLASSES, TargetRows

ROOT = Path(__file__).parents[1]
TAILS = ("even", "prior", "none", "bucket", "drawn", "sampled")


@dataclasses.dataclass
class Config:
    """Compare forms of compact soft targets by the students that are trained on them."""

    exp: Path
    """Experiment folder of recipes/librispeech/run.sh with the teachers."""
    out: Path
    """Folder for the stores, the students and tail.json."""
    conf: Path = ROOT / "recipes/librispeech/conf/embedded.yaml"
    """Configuration whose section "student" has the flags of the students."""
    temperatures: tuple[float, ...] = (1.0, 2.0)
    """Temperatures T; each is a comparison of its own."""
    budgets: tuple[str, ...] = ("8:0", "64:0.004")
    """Sizes of the stores, TOP:FLOOR each: the maximum number of classes and the minimum probability."""
    tails: tuple[str, ...] = TAILS
    """Forms of the tail.  "drawn" is importance sampling and "sampled" threshold sampling; their number of draws and
    their floor are chosen so that the store has the size of the others."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the students, at least two."""
    hard_weight: float = 0.0
    """Weight of the hard targets; 0: the students learn only from the soft targets."""


@dataclasses.dataclass(frozen=True)
class Variant:
    """One form of the soft targets."""

    temperature: float
    budget: str
    tail: str

    @property
    def name(self) -> str:
        return f"t{self.temperature:g}-{self.budget.replace(':', '-')}-{self.tail}"


def variants(config: Config) -> Iterator[Variant]:
    for temperature in config.temperatures:
        yield Variant(temperature, "all", "dense")
        for budget in config.budgets:
            for tail in config.tails:
                yield Variant(temperature, budget, tail)


def stage(module: str, *flags: object) -> None:
    """Run one stage of the recipe in its own process."""
    done = subprocess.run([sys.executable, "-m", f"asr_kd.{module}", *map(str, flags)], check=False)
    if done.returncode:
        raise UserError(f"python -m asr_kd.{module} failed: see the messages above")


def train(config: Config, variant: Variant, teachers: list[Path]) -> None:
    """Write the store of the variant and train its students."""
    exp, store = config.exp, config.out / variant.name / "store"
    if variant.tail == "dense":
        source: list[object] = ["--teachers", *teachers]
    else:
        stage(
            "soft_targets", "--models", *teachers, "--features", exp / "features", "--out", store,
            "--cuts", exp / "gmm/cuts_train.jsonl.gz", "--temperatures", variant.temperature,
            *form_flags(config, variant, teachers),
        )  # fmt: skip
        source = ["--soft-targets", store]
    stage(
        "train", "--config", f"{config.conf}:student", "--features", exp / "features", "--cuts", exp / "gmm",
        "--out", config.out / variant.name / "student", "--seeds", *config.seeds, *source,
        "--temperature", variant.temperature, "--hard-weight", config.hard_weight,
    )  # fmt: skip


def form_flags(config: Config, variant: Variant, teachers: list[Path]) -> list[object]:
    """Flags of asr_kd.soft_targets for the tail and the budget of the variant."""
    top, floor = variant.budget.split(":")
    if variant.tail not in ("drawn", "sampled"):
        return ["--tail", variant.tail, "--top", top, "--floor", floor]
    dense = sample_posteriors(config, variant.temperature, teachers)
    budget = TargetRows.pack(dense, int(top), float(floor)).nbytes

    def equal(sizes: Sequence[float], form: Callable[[Any, torch.Generator], TargetRows]) -> float:
        """The first of ``sizes`` whose targets have at least the bytes of the other tails."""
        place = bisect.bisect_left(sizes, budget, key=lambda size: form(size, torch.Generator().manual_seed(0)).nbytes)
        return sizes[min(place, len(sizes) - 1)]

    if variant.tail == "drawn":
        draws = equal(range(1, MAX_CLASSES + 1), partial(TargetRows.importance_sample, dense))
        return ["--tail", "drawn", "--draws", draws]
    floors = np.geomspace(0.5, 0.004, 200).tolist()
    return ["--tail", "sampled", "--floor", equal(floors, partial(TargetRows.threshold_sample, dense))]


def sample_posteriors(config: Config, temperature: float, teachers: list[Path], utterances: int = 100) -> torch.Tensor:
    """The ensemble's posteriors (T, C) on a sample of the training utterances."""
    models, normaliser = [load_model(folder) for folder in teachers], Normaliser.load(config.exp / "features")
    cuts = list(CutSet.from_file(config.exp / "gmm/cuts_train.jsonl.gz"))
    sample = cuts[:: max(1, len(cuts) // utterances)]
    return torch.cat([average_distributions(ensemble_logits(models, normaliser(cut)), temperature) for cut in sample])


def measure(config: Config, compared: list[Variant], teachers: list[Path]) -> list[dict[str, Any]]:
    """Frame accuracy and KL divergence of all students on dev and test."""
    models, normaliser = [load_model(folder) for folder in teachers], Normaliser.load(config.exp / "features")
    students = {v: [load_model(config.out / v.name / "student" / f"seed-{s}") for s in config.seeds] for v in compared}
    sums = {(v, split): np.zeros((2, len(config.seeds))) for v in compared for split in ("dev", "test")}
    frames = {"dev": 0, "test": 0}
    for split in frames:
        cuts = list(CutSet.from_file(config.exp / f"gmm/cuts_{split}.jsonl.gz"))
        for cut in progress(cuts, f"students on {split}", unit="utterance"):
            features = normaliser(cut)
            labels = torch.from_numpy(cut.load_custom("senones").astype(np.int64))
            logits = ensemble_logits(models, features)
            soft = {t: average_distributions(logits, t) for t in config.temperatures}
            frames[split] += len(labels)
            for variant, networks in students.items():
                t = variant.temperature
                for place, z in enumerate(ensemble_logits(networks, features)):
                    kl = F.kl_div(F.log_softmax(z / t, 1), soft[t], reduction="sum")
                    sums[variant, split][:, place] += (z.argmax(1) == labels).sum().item(), kl.item()
    return [row(config, v, {split: sums[v, split] / n for split, n in frames.items()}) for v in compared]


def row(config: Config, variant: Variant, figures: dict[str, np.ndarray]) -> dict[str, Any]:
    size: float | None = None
    if variant.tail != "dense":
        size = stage_figures(config.out / variant.name / "store")["temperatures"][f"{variant.temperature:g}"][
            "bytes_per_frame"
        ]
    out: dict[str, Any] = {"T": variant.temperature, "tail": variant.tail, "bytes per frame": size}
    for split, (correct, kl) in figures.items():
        out[f"{split} frame accuracy, %"] = f"{100 * correct.mean():.2f} ± {100 * correct.std(ddof=1):.2f}"
        out[f"{split} KL, nats"] = f"{kl.mean():.4f}"
    return out


def main(config: Config) -> None:
    if len(config.seeds) < 2:
        raise UserError("give at least two --seeds, so that a standard deviation can be computed")
    teachers = sorted((config.exp / "teachers").glob("seed-*"))
    torch.set_num_threads(cpu_count())
    compared = list(variants(config))
    for number, variant in enumerate(compared):
        print(f"\n== {variant.name} ({number + 1} of {len(compared)})", flush=True)
        train(config, variant, teachers)
    print()
    rows = measure(config, compared, teachers)
    bench.report(dataclasses.replace(config, out=config.out / "tail.json"), rows)


if __name__ == "__main__":
    run(Config, main)
