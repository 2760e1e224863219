"""Flags of ``python -m asr_kd.specialists.assign``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from asr_kd.specialists.clusters import Method
from asr_kd.specialists.config import ExamplesConfig


@dataclasses.dataclass(kw_only=True)
class Config(ExamplesConfig):
    """Cluster the classes by a generalist's predictions for the training examples.

    Labels are not needed, but by --by confusions.
    """

    out: Path
    """Folder for clusters.json and likeness.npy."""
    count: int = 30
    """Clusters, and specialists, a round."""
    size: int = 0
    """Classes of each specialist, those most like its cluster, so that a class may have several specialists or none;
    0: each class has the one of its cluster."""
    rounds: int = 1
    """Clusterings from different beginnings; with more than one, classes have several specialists."""
    method: Method = "kmeans"
    """kmeans (on-line, as in the paper), spectral or agglomerative."""
    by: Literal["covariance", "confusions"] = "covariance"
    """covariance of the predictions, as in the paper; or confusions, for comparison."""
    seed: int = 0
    """Of the beginnings of kmeans and spectral."""
