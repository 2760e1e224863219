"""Flags of ``python -m asr_kd.train``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Count, Dropout, Natural, NotNegative, Positive, Seeds, Share, flag_name
from asr_kd.common.storage import RUN_ONLY
from asr_kd.soft_targets.config import ForeignTeachers

#: Flags that only the paper's network has.
DNN_FLAGS = ("preset", "layers", "width", "left", "right", "dropout", "batch_norm")
#: Flags that only sequence training has.
SEQUENCE_FLAGS = ("criterion", "smoothing", "batch_frames")


@dataclass
class Config(ForeignTeachers, Workers):
    """Train networks that differ by seed: teachers on hard targets, or students on the soft targets of an ensemble.

    After --and, the flags of other networks may follow, which are trained at the same time.  Under torchrun, all
    processes train one network after the other together.
    """

    features: Path
    """Features folder (made by asr_kd.features)."""
    cuts: Path
    """Folder with cuts_train and cuts_dev that carry senones (made by asr_kd.hmm, or as shards by asr_kd.shar)."""
    out: Path
    """Each network is written to OUT/seed-N."""
    seeds: Seeds = (0,)
    """Seeds of the initial weights, the order of frames and dropout; one network is trained per seed."""
    same_order: bool = False
    """Use the order of frames of seed 0 for all seeds."""
    bootstrap: bool = False
    """Train each seed on a bootstrap sample: as many cuts as there are, drawn with replacement."""
    train_cuts: tuple[Path, ...] = ()
    """Cuts to train on, instead of cuts_train of --cuts; those without senones learn from soft targets alone."""
    network: str = "dnn"
    """The network: dnn (the paper's), tdnn, tdnnf, gru, conformer, emformer, or package.module:Class of your own."""
    network_args: tuple[str, ...] = ()
    """Arguments of --network other than dnn, such as layers=6 width=256."""
    delay: Natural = 0
    """Frames (10 ms each) by which the answer of a causal network, such as gru, comes later: it hears what follows."""
    preset: Literal["tiny", "quarter", "small", "medium", "large", "paper"] = "medium"
    """Hidden layers and units of dnn: tiny 2×128, quarter 4×192 (a quarter of medium), small 4×256, medium 4×512,
    large 6×1024, paper 8×2560."""
    layers: Natural = 0
    """Hidden layers of dnn; 0: the preset's."""
    width: Natural = 0
    """Units in each hidden layer of dnn; 0: the preset's."""
    left: Natural = 20
    """Context frames (10 ms each) of dnn before the labelled one."""
    right: Natural = 5
    """Context frames of dnn after the labelled one."""
    dropout: Dropout = 0.2
    """Share of hidden units of dnn dropped in training."""
    batch_norm: bool = False
    """Normalise the input of every ReLU of dnn over the batch: higher frame accuracy on little speech, 10 % slower."""
    start_from: Path | None = None
    """Network folder whose size and weights training starts from; none: random weights."""
    soft_targets: Path | None = None
    """Store of soft targets (made by asr_kd.soft_targets); none: hard targets only."""
    teachers: tuple[Path, ...] = ()
    """Instead of a store, teacher folders to run during training: nothing on disk, but they run in every epoch."""
    temperature: NotNegative = 0.0
    """Temperature T of the soft targets; 0: the only one that the store has, or 1 for --teachers and --posteriors."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How the distributions of --teachers, or of --posteriors, are averaged."""
    hard_weight: Share = 0.5
    """Weight of the hard targets next to soft ones."""
    lattices: Path | None = None
    """Store of lattices (made by asr_kd.lattices), for sequence training: --start-from learns on from whole
    utterances."""
    criterion: Literal["smbr", "mmi", "kl"] = "smbr"
    """What is learnt from --lattices: smbr (expected frame accuracy over the paths), mmi (posterior of the alignment),
    or kl (the path posterior of the networks that the lattices were decoded with)."""
    smoothing: Share = 0.1
    """Weight of the frame loss (hard targets, soft ones or both) next to --criterion."""
    batch_frames: Count = 4000
    """Frames per batch of whole utterances, with --lattices."""
    epochs: Count = 8
    """Passes over the training frames."""
    batch_size: Count = 512
    """Frames per batch of a window classifier, such as dnn."""
    chunk: Count = 128
    """Frames per chunk of any other network, which are trained on chunks of utterances with the frames around them;
    rounded up to whole segments of the network."""
    batch_chunks: Count = 16
    """Chunks per batch."""
    spec_augment: bool = False
    """Mask stripes of the features in every epoch (SpecAugment, as Lhotse does it, without warping time); --teachers
    hear the masked features too."""
    learning_rate: Positive = 2e-3
    """Peak learning rate of the one-cycle schedule (AdamW)."""
    clip: NotNegative = 0.0
    """Largest norm of the gradient, which keeps recurrent networks and attention stable; 0: no limit."""
    weight_decay: NotNegative = 0.01
    """Decoupled weight decay of AdamW."""
    pool_frames: Count = 2_000_000
    """Frames that all processes together hold in memory for shuffling."""
    streams: Count = 1
    """Streams that these frames are dealt to.  Each process of torchrun reads one or more, so there must be at least as
    many streams as processes.  The results depend on the number of streams, not on the number of processes."""
    tensor_parallel: bool = field(default=False, metadata=RUN_ONLY)
    """Under torchrun, give each process a share of the weights of every layer, and all frames, instead of all weights
    and a share of the frames: for networks that are too large for one device."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the matrix products (weights stay in float32); auto: bfloat16 if it is measured to be at
    least 1.2 times as fast here."""
    device: str = field(default="auto", metadata=RUN_ONLY)
    """cpu, cuda, or auto."""
    resources: str = field(default="", metadata=RUN_ONLY)
    """Resources that each network takes from a Dask worker, such as gpu=1 (dask worker ADDRESS --resources gpu=1).  Of
    configurations joined by --and, the first one decides this, --jobs and --scheduler."""


def training_cuts(config: Config) -> tuple[Path, ...]:
    """Return the manifests of the cuts to train on, or a folder of shards."""
    return config.train_cuts or (cuts_of(config, "train"),)


def cuts_of(config: Config, split: str) -> Path:
    """Return the manifest of a split, or its folder of shards (asr_kd.shar)."""
    shards = config.cuts / split
    return shards if shards.is_dir() else config.cuts / f"cuts_{split}.jsonl.gz"


def network_args(pairs: Sequence[str]) -> dict[str, Any]:
    """Return arguments from name=value; values are written as in YAML: numbers, true, false, [1, 2], words.

    Raises:
        UserError: one of them has another form.
    """
    args = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name.isidentifier() and equals):
            raise UserError(f"--network-args {pair}: write name=value, such as layers=6")
        try:
            args[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"--network-args {pair}: {value!r} is no number, list or word as in YAML") from None
    return args


def check(config: Config) -> None:
    """Check the flags before anything is read.

    Raises:
        UserError: the flags contradict each other.
    """
    network_args(config.network_args)
    if config.network != "dnn":
        changed = [name for name in DNN_FLAGS if getattr(config, name) != getattr(Config, name)]
        if changed or config.tensor_parallel:
            flag = (changed or ["tensor_parallel"])[0].replace("_", "-")
            raise UserError(f"--{flag} is for --network dnn: leave it out, or see --network-args")
    elif config.network_args:
        raise UserError("--network dnn has flags of its own (--preset, --layers, …): give these, not --network-args")
    _check_sequence(config)
    if config.tensor_parallel and config.batch_norm:
        raise UserError("--tensor-parallel does not work with --batch-norm: leave one of them out")
    given = {"--soft-targets": config.soft_targets, "--teachers": config.teachers, "--posteriors": config.posteriors}
    if len(flags := [flag for flag, value in given.items() if value]) > 1:
        raise UserError(
            f"{' and '.join(flags)} all give soft targets: leave one of them out (asr_kd.soft_targets averages "
            "networks and --posteriors in one store)"
        )


def _check_sequence(config: Config) -> None:
    """Check the flags of sequence training, and that no other one has to do with it."""
    if config.lattices is None:
        if changed := [name for name in SEQUENCE_FLAGS if getattr(config, name) != getattr(Config, name)]:
            raise UserError(f"{flag_name(changed[0])} is for sequence training: give --lattices too, or leave it out")
        return
    if config.start_from is None:
        raise UserError("--lattices continues the training of a network: give its folder with --start-from")
    for name in ("spec_augment", "tensor_parallel", "streams"):
        if getattr(config, name) != getattr(Config, name):
            raise UserError(f"{flag_name(name)} does not work with --lattices: leave it out")
