"""Which classes belong together: those that a generalist gives probability to at the same time (section 5.3)."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError

Method = Literal["kmeans", "spectral", "agglomerative"]


class Covariance:
    """Covariance matrix of predictions, from batches of them: nothing is kept but (C, C) sums."""

    def __init__(self, num_classes: int) -> None:
        self.count = 0
        self.sums = torch.zeros(num_classes, dtype=torch.float64)
        self.products = torch.zeros(num_classes, num_classes, dtype=torch.float64)

    def add(self, posteriors: Tensor, labels: Tensor | None = None) -> None:
        """Posteriors (N, C) of a batch; labels are not needed."""
        posteriors = posteriors.float().cpu()
        self.count += len(posteriors)
        self.sums += posteriors.sum(0, dtype=torch.float64)
        self.products += posteriors.T @ posteriors

    def matrix(self) -> np.ndarray:
        """(C, C) float64.

        Raises:
            ValueError: nothing was added.
        """
        if not self.count:
            raise ValueError("no predictions were added")
        mean = self.sums / self.count
        return (self.products / self.count - mean.outer(mean)).numpy()


class Confusions:
    """For comparison, what the paper has no need of: how much probability each class's examples give to others."""

    def __init__(self, num_classes: int) -> None:
        self.sums = torch.zeros(num_classes, num_classes, dtype=torch.float64)

    def add(self, posteriors: Tensor, labels: Tensor) -> None:
        """Posteriors (N, C) and labels (N,) of a batch."""
        self.sums.index_add_(0, labels.cpu(), posteriors.double().cpu())

    def matrix(self) -> np.ndarray:
        """(C, C) symmetric: the mean probability that examples of either class give to the other."""
        examples = self.sums.sum(1, keepdim=True).clamp_min(1)
        shares = self.sums / examples
        return ((shares + shares.T) / 2).numpy()


def cluster(
    likeness: np.ndarray, count: int, method: Method = "kmeans", seed: int = 0, size: int = 0
) -> list[np.ndarray]:
    """Split classes into groups that look alike.

    Args:
        likeness: (C, C) symmetric, larger for classes that are more alike.
        count: groups wanted.
        method: "kmeans", on-line k-means on the columns, as in the paper; "spectral"; "agglomerative", by average
            linkage.
        seed: of k-means's and the spectral method's beginnings.
        size: classes of each group, those most like the members of a cluster, so that a class may be in several groups
            or in none (as in the paper: 61 specialists of 300 of 15,000 classes); 0: the clusters themselves.

    Returns:
        groups of classes, ascending within a group, the largest group first; fewer than ``count`` where some
        came out empty.

    Raises:
        UserError: more groups than classes, or fewer than two; or groups of all classes.
    """
    classes = len(likeness)
    if not 2 <= count <= classes:
        raise UserError(f"{count} specialists for {classes} classes: give 2 to {classes}")
    if not 0 <= size < classes:
        raise UserError(f"specialists of {size} of {classes} classes: give --size 1 to {classes - 1}, or 0")
    labels = _LABELS[method](likeness, count, seed)
    groups = [np.flatnonzero(labels == label) for label in range(count)]
    groups = [group for group in groups if len(group)]
    if len(groups) < count:
        logging.warning(
            "%d of %d clusters are empty: there will be %d specialists", count - len(groups), count, len(groups)
        )
    if size:
        alike = correlation(likeness)
        groups = [np.sort(np.argsort(-alike[:, group].mean(1), kind="stable")[:size]) for group in groups]
    return sorted(groups, key=lambda group: (-len(group), group[0]))


def _kmeans(likeness: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    # Columns are compared by their shape: a frequent class would else be like no rare one.
    columns = likeness / np.maximum(np.linalg.norm(likeness, axis=1, keepdims=True), np.finfo(float).tiny)
    return MiniBatchKMeans(count, random_state=seed, n_init=10, batch_size=1024).fit_predict(columns)


def _spectral(likeness: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    model = SpectralClustering(count, affinity="precomputed", random_state=seed, assign_labels="cluster_qr")
    return model.fit_predict(np.maximum(correlation(likeness), 1e-3))  # never quite apart


def _agglomerative(likeness: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import AgglomerativeClustering

    distance = 1 - correlation(likeness)
    return AgglomerativeClustering(count, metric="precomputed", linkage="average").fit_predict(distance)


def correlation(likeness: np.ndarray) -> np.ndarray:
    """(C, C) from −1 to 1, of a covariance matrix."""
    spread = np.sqrt(np.maximum(np.diag(likeness), np.finfo(float).tiny))
    return np.clip(likeness / np.outer(spread, spread), -1, 1)


_LABELS = {"kmeans": _kmeans, "spectral": _spectral, "agglomerative": _agglomerative}
