"""Flags of ``python -m asr_kd.plan``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from asr_kd.common.settings import Count, Natural, NotNegative, Positive, Settings
from asr_kd.decode.config import Search

Preset = Literal["tiny", "quarter", "small", "medium", "large", "paper"]


@dataclasses.dataclass
class Config(Settings):
    """Estimate what a run would take, on this machine or on others, from rates measured here in a minute or two."""

    hours: Positive
    """Hours of training speech."""
    copies: Count = 1
    """Copies of each utterance: 1 plus the number of speeds of --speed-perturb."""
    test_hours: Positive = 5.0
    """Hours of dev and test speech, which every system decodes."""
    senones: Count = 600
    """Number of senones."""
    num_features: Count = 40
    """Features per frame."""
    preset: Preset = "medium"
    """Hidden layers and units of the teachers (asr_kd.train --preset)."""
    student: Preset | None = None
    """Hidden layers and units of the students; default: those of the teachers."""
    teachers: Count = 5
    """Networks in the ensemble."""
    students: Count = 1
    """Networks distilled from the ensemble."""
    epochs: Count = 2
    """Passes over the training frames."""
    batch_size: Count = 512
    """Frames per batch."""
    pool_frames: Count = 2_000_000
    """Frames held in memory for shuffling."""
    batch_norm: bool = False
    """Networks with batch normalisation."""
    systems: Path | None = None
    """YAML file with the systems that are decoded (recipes/librispeech/conf/systems.yaml, or a study), whose variables
    teachers and seeds are --teachers and --students; default: one network, the ensemble, one student."""
    search: Search = "k2"
    """What searches (asr_kd.decode --search)."""
    real_time_factor: NotNegative = 0.0
    """Real-time factor of the search on one core (in reports, the RTF minus the RTF of scoring, in brackets there); 0:
    measured here in a small graph, times 4, as a graph of 1.7 million arcs takes with beam 15."""
    cores: Natural = 0
    """Cores at work, on one or more machines; 0: those of this machine."""
    gpus: Natural = 0
    """GPUs at work; 0: networks are trained on the cores."""
    gpu_tflops: NotNegative = 0.0
    """Operations per second that a GPU achieves in training, in 10^12; 0: measured here."""
    disk_rate: Positive = 500.0
    """Disk throughput of all machines together, in MB per second."""
    network_rate: Positive = 10_000.0
    """Throughput between any two GPUs, in MB per second."""
    rates: Path | None = None
    """JSON file of rates: read if it exists, else measured and written."""
    out: Path | None = None
    """JSON file for the plan, in addition to the printed table."""
