"""One network on MNIST: its flags.  The work is in ``asr_kd.mnist.training``, which imports slowly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from asr_kd.storage import MARK, Stage, UserError, read_json


@dataclasses.dataclass
class Config:
    """Train one network on MNIST: on the labels, or with the soft targets of other networks."""

    data: Path
    """Folder with MNIST's four files (made by asr_kd.mnist.digits)."""
    out: Path
    """Folder of the network."""
    seed: int = 0
    """Of initial weights, order of images, moves and dropout."""
    layers: int = 2
    """Hidden layers of ReLUs."""
    width: int = 800
    """Units in each hidden layer."""
    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 256
    """Images a batch."""
    learning_rate: float = 1e-3
    """Peak of the one-cycle schedule (AdamW)."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    dropout: float = 0.0
    """Share of hidden units dropped in training."""
    input_dropout: float = 0.0
    """Share of pixels dropped in training."""
    max_norm: float = 0.0
    """Greatest length of the weights that enter a hidden unit; 0: no limit."""
    jitter: int = 0
    """Training images are moved by up to so many pixels either way, anew in each epoch."""
    bend: float = 0.0
    """Training images are bent, anew in each epoch: how far, in pixels (standard deviation at 4×4 points)."""
    held_out: int = 0
    """So many of the training images, the last ones, are not learnt from but tested on."""
    digits: tuple[int, ...] = tuple(range(10))
    """Digits that the training images (with teachers: the transfer set) have."""
    teachers: tuple[Path, ...] = ()
    """Folders of networks whose averaged soft targets to learn; none: labels alone."""
    temperature: float = 20.0
    """Temperature T of the soft targets; inf: the teachers' logits are matched."""
    hard_weight: float = 0.1
    """Weight of the labels beside soft targets, 0 to 1; 0: the transfer set needs no labels."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Matrix products in bfloat16 (weights stay float32); auto: where the processor or GPU has it."""
    device: str = "auto"
    """cpu, cuda, or auto."""


def main(config: Config) -> None:
    """Train, unless it is done already."""
    stage = stage_of(config)
    if stage.begin():
        from asr_kd.mnist.training import train_network

        stage.finish(**train_network(config))


def stage_of(config: Config) -> Stage:
    """The completion mark of a network.

    Raises:
        UserError: settings that cannot work, or a teacher that is missing or unfinished.
    """
    if config.epochs < 1 or config.batch_size < 1 or config.width < 1 or config.layers < 1:
        raise UserError("--epochs, --batch-size, --width and --layers must be positive: correct the flag")
    if not (0 <= config.dropout < 1 and 0 <= config.input_dropout < 1 and 0 <= config.hard_weight <= 1):
        raise UserError("--dropout and --input-dropout must lie in [0, 1), --hard-weight in [0, 1]: correct the flag")
    if not config.temperature > 0 or not 0 <= config.jitter <= 28:
        raise UserError("--temperature must be positive, --jitter 0 to 28: correct the flag")
    if not (config.max_norm >= 0 and 0 <= config.bend < 28):
        raise UserError("--max-norm must be 0 or more, --bend 0 to less than 28: correct the flag")
    if not 0 <= config.held_out < 60_000:
        raise UserError("--held-out must be 0 or more, and leave some of the 60,000 images: correct the flag")
    if not config.digits or not set(config.digits) <= set(range(10)):
        raise UserError("--digits must be some of 0 to 9: correct the flag")
    return Stage("mnist", config.out, config, config.teachers)


def finished(kind: Path) -> list[Path]:
    """Folders of the seeds that are trained."""
    marks = sorted(kind.glob(f"seed-*/{MARK}"), key=lambda path: int(path.parent.name.removeprefix("seed-")))
    return [path.parent for path in marks if read_json(path)["status"] == "done"]
