"""Flags of ``python -m asr_kd.study``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Config:
    """Run a study from prepared features: train, measure, decode, report.  What is done already is skipped."""

    study: Path
    """The study's YAML file (recipes/librispeech/studies)."""
    conf: Path
    """Configuration of the recipe, whose sections the study starts from."""
    exp: Path
    """The experiment's folder, with features, senones and graph (made by the recipe's stages 1 to 5)."""
    scheduler: str = ""
    """Address of a Dask scheduler, as tcp://HOST:8786, whose workers do what fans out."""
    command: str = ""
    """Command that made it all, for the report."""
