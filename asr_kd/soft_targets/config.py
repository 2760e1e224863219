"""Flags of ``python -m asr_kd.soft_targets``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from asr_kd.common.parallel import Workers
from asr_kd.common.storage import RUN_ONLY


@dataclass
class Config(Workers):
    """Average an ensemble's tempered posteriors over a transfer set and store them compactly."""

    models: tuple[Path, ...]
    """Teacher folders, one per member (made by asr_kd.train)."""
    features: Path
    """Features folder (made by asr_kd.features)."""
    cuts: Path
    """Cuts of the transfer set; only their ids and features are used."""
    out: Path
    """Folder of the store."""
    temperatures: tuple[float, ...] = (1.0,)
    """Temperatures T, all computed in one pass; a student uses one of them."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How the members' distributions are averaged."""
    floor: float = 0.02
    """Least probability of a class that is kept for certain.  A class takes 3 bytes, a frame 2 more."""
    tail: Literal["sampled", "drawn", "bucket", "prior", "even", "none"] = "sampled"
    """What becomes of the classes below --floor.  sampled: each survives with the chance probability / floor and
    counts as the floor then, so that the targets are right on average (--floor 0.004 at least).  drawn: no floor, all
    classes are kept by --draws (unbiased too, but noisier than sampled at the same size).  bucket: one outcome
    "another class", whose share among them is left to the student.  prior, even: their mass is spread over them in
    proportion to the senone prior, or evenly (such students take implausible senones for possible ones, and recognise
    fewer words).  none: left out, the kept ones being scaled up to one."""
    top: int = 255
    """Classes kept for each frame, at most; not for --tail sampled, which keeps up to 1 / floor + 1, nor drawn."""
    draws: int = 64
    """Random draws a frame, for --tail drawn (the importance sampling of Anshumann et al. 2025)."""
    seed: int = 0
    """Of everything random."""
    device: str = field(default="auto", metadata=RUN_ONLY)
    """Where teachers run: cpu, cuda, or auto (cuda if there is one).  All --jobs of a machine share its GPU."""
