"""Flags of ``python -m asr_kd.study``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.settings import Settings


@dataclass
class Config(Settings):
    """Run a study from prepared features: train, measure, decode, report.  What is finished is skipped."""

    study: Path
    """The study's YAML file (recipes/librispeech/studies)."""
    conf: Path
    """Configuration of the recipe, with the flags that the steps of the study start from."""
    exp: Path
    """The experiment's folder, with features, senones and graph (made by the recipe's stages 1 to 5)."""
    scheduler: str = ""
    """Address of a Dask scheduler, as tcp://HOST:8786, whose workers do what fans out."""
    command: str = ""
    """Command line that ran the study, for the report."""
