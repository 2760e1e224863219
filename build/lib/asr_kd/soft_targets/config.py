"""Flags of ``python -m asr_kd.soft_targets``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Positive, Seed, Settings, within
from asr_kd.common.storage import RUN_ONLY

FRAME_SHIFT = 0.01  # seconds, of the features


@dataclass(kw_only=True)
class ForeignTeachers(Settings):
    """Flags of stages that take posteriors of teachers made elsewhere."""

    posteriors: tuple[Path, ...] = ()
    """Posteriors made elsewhere, a teacher each: a folder of ID.npy (frames × classes), a Kaldi archive (.ark, binary)
    or script file (.scp) of matrices, or a Lhotse manifest of cuts that carry them.  Utterances that have none, or too
    many or few frames, are left out, listed and counted."""
    posteriors_kind: Literal["auto", "logits", "log-probabilities", "probabilities"] = "auto"
    """What --posteriors are.  auto: probabilities if those of the first utterance sum to one in every frame,
    log-probabilities if their exponentials do, else logits."""
    posteriors_field: str = "posteriors"
    """Custom field of the cuts that has the array, if --posteriors is a manifest."""
    teacher_shift: Positive = FRAME_SHIFT
    """Seconds from one frame of --posteriors to the next; the features have a frame every 0.01.  Each frame of the
    features takes the posteriors of the teacher's frame it lies in.  The lengths may differ by 3 frames of the
    features, or 2 of the teacher's if those are longer; the last frame is repeated or dropped."""


@dataclass
class Config(ForeignTeachers, Workers):
    """Average the posteriors of teachers at one or more temperatures over a transfer set, and store them compactly.

    The teachers are networks (--models), posteriors made elsewhere (--posteriors), or both.
    """

    features: Path
    """Features folder (made by asr_kd.features)."""
    cuts: Path
    """Manifest of the transfer set; only the ids and features of its cuts are used."""
    out: Path
    """Folder of the store."""
    student_features: Path | None = None
    """Features folder that the student will train on, if it hears others than the teachers (such as log-mels that are
    not adapted to the speaker): of the same utterances, frame for frame."""
    models: tuple[Path, ...] = ()
    """Folders of the teachers (made by asr_kd.train)."""
    temperatures: Annotated[tuple[float, ...], within(above=0, filled=True, different=True)] = (1.0,)
    """Temperatures T; all are computed in one pass, and a student uses one of them."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How the distributions of the teachers are averaged."""
    floor: Annotated[float, within(0, below=1)] = 0.02
    """Smallest probability of a class that is always kept.  A class takes 3 bytes, and a frame 2 more."""
    tail: Literal["sampled", "drawn", "bucket", "prior", "even", "none"] = "sampled"
    """What happens to the classes below --floor.  sampled: each is kept with the chance probability / floor, as if its
    probability were the floor, which makes the targets unbiased (needs --floor 0.004 or more).  drawn: there is no
    floor, and --draws random draws decide (also unbiased, but noisier than sampled at the same size).  bucket: they are
    one outcome "another class", and the student decides how it is shared.  prior, even: their mass is spread over them
    in proportion to the senone prior, or evenly (students then consider implausible senones possible, and their WER is
    higher).  none: they are left out, and the others are scaled to a sum of one."""
    top: Annotated[int, within(1, 255)] = 255
    """Maximum number of classes per frame; not for --tail sampled, which keeps up to 1 / floor + 1, nor drawn."""
    draws: Annotated[int, within(1, 255)] = 64
    """Random draws per frame, for --tail drawn (importance sampling, Anshumann et al. 2025)."""
    seed: Seed = 0
    """Seed of the random draws."""
    device: str = field(default="auto", metadata=RUN_ONLY)
    """Device that the teachers run on: cpu, cuda, or auto.  All --jobs of a machine share its GPU."""


def check(config: Config) -> None:
    """Check the flags before anything is read.

    Raises:
        UserError: the flags contradict each other.
    """
    if not config.models and not config.posteriors:
        raise UserError("there are no teachers: give --models, --posteriors, or both")
    if config.tail == "prior" and not config.models:
        raise UserError("--tail prior takes the prior of the first of --models: give one, or choose another --tail")
    if config.tail == "sampled" and config.floor < 0.004:
        raise UserError("--tail sampled needs a --floor of 0.004 or more: raise it, or choose another --tail")
