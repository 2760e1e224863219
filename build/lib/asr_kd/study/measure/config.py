"""Flags of ``python -m asr_kd.study.measure``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.settings import Settings


@dataclass
class Config(Settings):
    """Decode the systems of an experiment and measure their frame accuracy.  What is finished is skipped.

    Acoustic scale and word insertion penalty are tuned on dev first, for the networks that the list names.
    """

    systems: Path
    """YAML file with the systems (recipes/librispeech/conf/systems.yaml)."""
    conf: Path
    """Configuration of the recipe, with the sections decode and accuracy."""
    exp: Path
    """The experiment's folder, with the trained networks."""
    variables: tuple[str, ...] = ()
    """Values of variables of --systems, NAME=VALUE each."""
    scheduler: str = ""
    """Address of a Dask scheduler, as tcp://HOST:8786, whose workers do what fans out."""
