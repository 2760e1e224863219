"""Flags of ``python -m asr_kd.report``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from asr_kd.common.settings import Settings
from asr_kd.common.storage import RUN_ONLY


@dataclass
class Config(Settings):
    """Report an experiment as the paper's Table 1, figures and facts: report.md, index.html, results.json, figures/.

    What the experiment lacks is listed as not run.
    """

    exp: Path
    """The experiment's folder."""
    systems: Path
    """YAML file with its systems (recipes/librispeech/conf/systems.yaml)."""
    out: Path
    """Folder for the report."""
    variables: tuple[str, ...] = ()
    """Values of variables of --systems, NAME=VALUE each."""
    score: Path | None = None
    """Folder that asr_kd.score filled; default: EXP/score."""
    gmm: Path | None = None
    """Folder with the senones: aligned cuts and transition model; default: EXP/gmm."""
    boundaries: Path | None = None
    """Folder with boundaries.json (made by asr_kd.hmm.boundaries); default: EXP/boundaries, if there is one."""
    title: str = "Distilling the knowledge in an ensemble of acoustic models"
    """Title of the page."""
    command: str = field(default="", metadata=RUN_ONLY)
    """Command line that made the experiment, to be shown."""
    utterance: str = ""
    """Test utterance of the posteriorgram; default: the utterance closest to 3 seconds."""
    posteriorgram: bool = True
    """Draw the posteriorgram (needs the models and their features)."""
