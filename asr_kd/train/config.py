"""Flags of ``python -m asr_kd.train``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import Workers
from asr_kd.common.storage import RUN_ONLY


@dataclass
class Config(Workers):
    """Train networks that differ by seed: teachers on hard targets, or students on an ensemble's soft targets.

    After --and, the flags of further networks may follow: all are trained in one go.  Under torchrun, its processes
    train one network after the other together.
    """

    features: Path
    """Features folder (made by asr_kd.features)."""
    cuts: Path
    """Folder with cuts_train and cuts_dev that carry senones (made by asr_kd.hmm, or as shards by asr_kd.shar)."""
    out: Path
    """Each network goes to OUT/seed-N."""
    seeds: tuple[int, ...] = (0,)
    """One network for each seed (initial weights, order of frames, dropout)."""
    same_order: bool = False
    """All seeds see the frames in the order of seed 0."""
    bootstrap: bool = False
    """Each seed trains on as many cuts as there are, drawn from them with replacement."""
    train_cuts: tuple[Path, ...] = ()
    """Cuts to train on, instead of cuts_train of --cuts; those without senones learn from soft targets alone."""
    preset: Literal["tiny", "quarter", "small", "medium", "large", "paper"] = "medium"
    """Hidden layers and units: tiny 2×128, quarter 4×192 (a quarter of medium), small 4×256, medium 4×512,
    large 6×1024, paper 8×2560."""
    layers: int = 0
    """Hidden layers; 0: the preset's."""
    width: int = 0
    """Units in each hidden layer; 0: the preset's."""
    left: int = 20
    """Context frames (10 ms each) before the labelled one."""
    right: int = 5
    """Context frames after the labelled one."""
    dropout: float = 0.2
    """Share of hidden units dropped in training."""
    batch_norm: bool = False
    """Normalise the input of every ReLU over the batch: on little speech, more frames right for a tenth more time."""
    start_from: Path | None = None
    """Network whose size and weights it begins with; none: random weights."""
    soft_targets: Path | None = None
    """Store of soft targets (made by asr_kd.soft_targets); none: hard targets alone."""
    teachers: tuple[Path, ...] = ()
    """Instead of a store, teacher folders to run beside the student: nothing on disk, but every epoch pays for them."""
    temperature: float = 0.0
    """Temperature T of the soft targets; 0 means the store's if it has only one, and 1 for --teachers."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How the distributions of --teachers are averaged."""
    hard_weight: float = 0.5
    """Weight of the hard targets beside soft ones, 0 to 1."""
    epochs: int = 8
    """Passes over the training frames."""
    batch_size: int = 512
    """Frames a batch."""
    learning_rate: float = 2e-3
    """Peak of the one-cycle schedule (AdamW)."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay."""
    pool_frames: int = 2_000_000
    """Frames held in memory at once for shuffling, by all processes together."""
    streams: int = 1
    """Parts that these frames are dealt to. torchrun's processes take one or more each, so there must be as many as
    processes; the figures depend on the number of streams, not on the number of processes."""
    tensor_parallel: bool = field(default=False, metadata=RUN_ONLY)
    """Under torchrun, give each process a share of every layer's weights and all frames, instead of all weights and a
    share of the frames: for networks too large for one device."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Matrix products in bfloat16 (weights stay float32); auto: where the processor or GPU has it."""
    device: str = field(default="auto", metadata=RUN_ONLY)
    """cpu, cuda, or auto."""
    resources: str = field(default="", metadata=RUN_ONLY)
    """What each network takes of a Dask worker, such as gpu=1 (dask worker ADDRESS --resources gpu=1).  As with --jobs
    and --scheduler, of several configurations joined by --and the first one holds."""


def training_cuts(config: Config) -> tuple[Path, ...]:
    """Manifests of the cuts to train on, or a folder of shards."""
    return config.train_cuts or (cuts_of(config, "train"),)


def cuts_of(config: Config, split: str) -> Path:
    """A split's manifest, or its folder of shards (asr_kd.shar)."""
    shards = config.cuts / split
    return shards if shards.is_dir() else config.cuts / f"cuts_{split}.jsonl.gz"


def check(config: Config) -> None:
    """Refuse settings that cannot work, before anything is read."""
    if not config.seeds or len(set(config.seeds)) != len(config.seeds):
        raise UserError("--seeds must name different seeds, at least one: correct the flag")
    if config.epochs < 1 or config.batch_size < 1 or not 0 <= config.dropout < 1:
        raise UserError("--epochs and --batch-size must be positive, --dropout in [0, 1): correct the flag")
    if config.streams < 1:
        raise UserError("--streams must be positive: correct the flag")
    if config.layers < 0 or config.width < 0:
        raise UserError("--layers and --width must be positive, or 0 for the preset's: correct the flag")
    if config.tensor_parallel and config.batch_norm:
        raise UserError("--tensor-parallel is for networks without --batch-norm: leave one out")
    if config.soft_targets is not None and config.teachers:
        raise UserError("--soft-targets and --teachers are two ways to the same: leave one out")
    if config.temperature < 0:
        raise UserError("--temperature must be positive: correct the flag")
    if not 0 <= config.hard_weight <= 1:
        raise UserError("--hard-weight must lie between 0 and 1: correct the flag")
