"""Flags of ``python -m asr_kd.specialists.images``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_kd.common.settings import Count, Natural, Positive, Seed, Settings


@dataclasses.dataclass
class Config(Settings):
    """Compose images of three digits each (only their indices are stored), or read folders of images."""

    out: Path
    """Folder of the images."""
    digits: Path | None = None
    """Folder with MNIST's four files (written by asr_kd.mnist.digits): three digits side by side, 1,000 classes."""
    train: Path | None = None
    """Instead of --digits: a folder with one folder of images per class."""
    test: Path | None = None
    """Test images for --train, with the same classes."""
    size: Count = 28
    """Pixels per side to which --train and --test images are resized; they become grey."""
    per_class: Count = 300
    """Training images per class, composed of --digits."""
    more_per_class: Natural = 0
    """Extra training images per class, composed of --digits, for specialists only; 0: they use the generalist's."""
    test_per_class: Count = 50
    """Test images per class, composed of --digits."""
    variants: Natural = 0
    """Elastically distorted variants of each training digit of --digits; 0: the original digits."""
    bend: Positive = 1.0
    """Elastic distortion of the variants: standard deviation of the displacement in pixels."""
    seed: Seed = 0
    """Seed of the distortions and of the choice of digits."""
