"""One network on MNIST: its flags.  The work is in ``asr_kd.mnist.training``, which imports slowly."""

from __future__ import annotations

from pathlib import Path

from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, is_finished
from asr_kd.mnist.config import Config


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
    folders = sorted(kind.glob("seed-*"), key=lambda path: int(path.name.removeprefix("seed-")))
    return [folder for folder in folders if is_finished(folder)]
