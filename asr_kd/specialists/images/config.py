"""Flags of ``python -m asr_kd.specialists.images``."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass
class Config:
    """Choose which digits make which image (nothing is drawn), or read folders of images."""

    out: Path
    """Folder to fill."""
    digits: Path | None = None
    """Folder with MNIST's four files (made by asr_kd.mnist.digits): three digits side by side, 1,000 classes."""
    train: Path | None = None
    """Instead, a folder with one folder of images a class."""
    test: Path | None = None
    """The same classes, to test on."""
    size: int = 28
    """Pixels that each side of --train and --test images is brought to; they become grey."""
    per_class: int = 300
    """Training images a class made of --digits."""
    more_per_class: int = 0
    """Further training images a class made of --digits, for specialists alone; 0: they see the generalist's again."""
    test_per_class: int = 50
    """Test images a class made of --digits."""
    variants: int = 0
    """Handwritings made of each training digit of --digits by bending it; 0: the digits as they are."""
    bend: float = 1.0
    """How far bending displaces a digit's parts: standard deviation in pixels."""
    seed: int = 0
    """Of bending and of the choice of digits."""
