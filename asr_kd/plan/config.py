"""Flags of ``python -m asr_kd.plan``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

Preset = Literal["tiny", "quarter", "small", "medium", "large", "paper"]


@dataclasses.dataclass
class Config:
    """Tell what a run would take, on this machine or on others; measures this one for a minute or two first."""

    hours: float
    """Training speech, hours."""
    copies: int = 1
    """Times that each utterance is in it (1 and as many as --speed-perturb has speeds)."""
    test_hours: float = 5.0
    """Speech of dev and test, hours; each system decodes it."""
    senones: int = 600
    """Classes of the networks."""
    preset: Preset = "medium"
    """Teachers' hidden layers and units (asr_kd.train --preset)."""
    student: Preset | None = None
    """Students'; default: as the teachers."""
    teachers: int = 5
    """Networks of the ensemble."""
    students: int = 1
    """Networks distilled from it."""
    epochs: int = 2
    """Passes over the training frames."""
    batch_size: int = 512
    """Frames a batch."""
    pool_frames: int = 2_000_000
    """Frames held in memory for shuffling."""
    batch_norm: bool = False
    """Networks with batch norm."""
    systems: int = 3
    """Systems that decode the test set: one network, or of several one the ensemble of teachers."""
    real_time_factor: float = 0.0
    """Of the search on one core (what reports tell less what stands in brackets there, which is scoring); 0: measured
    here in a small graph, and 4 times that, as a graph of 1.7 million arcs takes with beam 15."""
    cores: int = 0
    """Cores at work, on one or more machines; 0: this machine's."""
    gpus: int = 0
    """GPUs at work; 0: networks are trained on the cores."""
    gpu_tflops: float = 0.0
    """Operations a second that a GPU achieves in training, in 10^12; 0: measured here."""
    disk_rate: float = 500.0
    """What all machines together read from or write to the disk, MB a second."""
    network_rate: float = 10_000.0
    """Between any two GPUs, MB a second."""
    rates: Path | None = None
    """JSON file of rates: read if it is there, else measured and written."""
    out: Path | None = None
    """Also write the plan as JSON."""
