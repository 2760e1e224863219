"""Flags of ``python -m asr_kd.report``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from asr_kd.common.storage import RUN_ONLY
from asr_kd.score.config import Unit


@dataclass
class Config:
    """The paper's Table 1 of an experiment: report.md, results.json, index.html and figures/*.svg.

    What the experiment lacks is listed as not run.
    """

    exp: Path
    """The experiment's folder."""
    systems: Path
    """YAML list of the systems: name, label, kind (gmm, single, ensemble, student), models, decode and accuracy
    (folders relative to --exp, wildcards allowed), twin (the name of the system to compare with)."""
    out: Path
    """Folder for the report."""
    gmm: Path | None = None
    """Folder with the senones: aligned cuts and transition model; default: EXP/gmm."""
    cuts: Path | None = None
    """Folder with the cuts_SPLIT.jsonl.gz that were decoded, the reference; default: EXP/features."""
    boundaries: Path | None = None
    """Folder with boundaries.json (made by asr_kd.hmm.boundaries); default: EXP/boundaries, if there is one."""
    title: str = "Distilling the knowledge in an ensemble of acoustic models"
    """Title of the page."""
    command: str = field(default="", metadata=RUN_ONLY)
    """Command line that made the experiment, to be shown."""
    utterance: str = ""
    """Test utterance of the posteriorgram; default: the one nearest to 3 seconds."""
    posteriorgram: bool = True
    """Draw it (needs the models and their features)."""
    bootstrap_by: Unit = "utterance"
    """What the bootstrap draws: utterances, or speakers."""
    replications: int = 10_000
    """Bootstrap draws."""
    seed: int = 0
    """Seed of the draws."""
