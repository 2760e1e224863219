"""The flags of ``python -m asr_kd.check``."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass
class Config:
    """Verify every file of an experiment, and say which stages to run again.

    The exit status is 1 if a file is missing, damaged, unfinished or unknown.
    """

    exp: tyro.conf.Positional[Path]
    """Folder of the experiment, or of one stage."""
