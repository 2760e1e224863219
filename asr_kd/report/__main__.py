"""Stage ``python -m asr_kd.report``: a finished experiment as tables, JSON and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from asr_kd.cli import run
from asr_kd.report.facts import STAGES
from asr_kd.report.systems import Experiment, System, find, finished, read_systems
from asr_kd.score import Unit
from asr_kd.storage import Stage, UserError


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
    """Folder with the cuts_ROLE.jsonl.gz that were decoded, the reference; default: EXP/features."""
    boundaries: Path | None = None
    """Folder with boundaries.json (made by asr_kd.hmm.boundaries); default: EXP/boundaries, if there is one."""
    title: str = "Distilling the knowledge in an ensemble of acoustic models"
    """Title of the page."""
    command: str = ""
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


def main(config: Config) -> None:
    if not config.exp.is_dir():
        raise UserError(f"{config.exp} does not exist: give the experiment's folder as --exp")
    experiment = Experiment(
        root=config.exp,
        gmm=config.gmm or config.exp / "gmm",
        cuts=config.cuts or config.exp / "features",
        boundaries=config.boundaries or config.exp / "boundaries",
    )
    systems = read_systems(config.systems)
    settings = {k: v for k, v in asdict(config).items() if k != "command"}
    stage = Stage("report", config.out, settings, [config.systems, *_inputs(experiment, systems)])
    if not stage.begin():
        return
    from asr_kd.report.build import build

    stage.finish(**build(config, experiment, systems))


def _inputs(experiment: Experiment, systems: Sequence[System]) -> list[Path]:
    """What the report depends on, as far as it is there."""
    folders = [experiment.root / name for name in STAGES] + [experiment.gmm, experiment.cuts]
    found = find(experiment.root, [p for s in systems for p in (*s.models, *s.decode, *s.accuracy)])[0]
    boundaries = experiment.boundaries / "boundaries.json"
    return [*filter(finished, dict.fromkeys(folders + found)), *([boundaries] if boundaries.is_file() else [])]


if __name__ == "__main__":
    run(Config, main)
