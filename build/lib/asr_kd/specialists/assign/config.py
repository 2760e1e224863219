"""Flags of ``python -m asr_kd.specialists.assign``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from asr_kd.common.settings import Count, Natural, Seed
from asr_kd.specialists.config import ExamplesConfig


@dataclasses.dataclass(kw_only=True)
class Config(ExamplesConfig):
    """Cluster the classes by a generalist's predictions for the training examples.

    Labels are not needed, except by --by confusions.
    """

    out: Path
    """Folder for clusters.json and likeness.npy."""
    count: Count = 30
    """Clusters, and so specialists, per round."""
    size: Natural = 0
    """Classes per specialist: those most similar to its cluster, so that a class may have several specialists or none;
    0: exactly the classes of the cluster."""
    rounds: Count = 1
    """Clusterings with different seeds; with more than one, a class has several specialists."""
    method: Literal["kmeans", "spectral", "agglomerative"] = "kmeans"
    """kmeans (on-line, as in the paper), spectral or agglomerative."""
    by: Literal["covariance", "confusions"] = "covariance"
    """covariance of the predictions, as in the paper; or confusions, for comparison."""
    seed: Seed = 0
    """Seed of kmeans and spectral."""
