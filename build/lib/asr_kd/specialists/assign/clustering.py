"""Clusters of classes that a generalist predicts together (section 5.3)."""

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.models.checkpoints import load_model
from asr_kd.models.device import device_and_dtype
from asr_kd.models.posteriors import compute_logits
from asr_kd.specialists.examples import Examples


def class_similarity(examples: Examples, generalist: Path, by: str) -> np.ndarray:
    """Return the similarity of classes (C, C), from a generalist's predictions for the training examples.

    Args:
        by: "covariance" or "confusions".
    """
    _, dtype = device_and_dtype("cpu", "auto")
    model = load_model(generalist)
    statistics = Covariance(len(examples.names)) if by == "covariance" else Confusions(len(examples.names))
    for block in progress(examples.blocks("train"), "predictions", examples.num_blocks("train"), "block"):
        statistics.add(compute_logits(model, block.inputs, dtype, block.chunks).softmax(1), block.labels)
    return statistics.matrix()


class Covariance:
    """Covariance matrix of predictions, accumulated over batches in (C, C) sums."""

    def __init__(self, num_classes: int) -> None:
        self.count = 0
        self.sums = torch.zeros(num_classes, dtype=torch.float64)
        self.products = torch.zeros(num_classes, num_classes, dtype=torch.float64)

    def add(self, posteriors: Tensor, labels: Tensor | None = None) -> None:
        """Add the posteriors (N, C) of a batch; labels are not needed."""
        posteriors = posteriors.float().cpu()
        self.count += len(posteriors)
        self.sums += posteriors.sum(0, dtype=torch.float64)
        self.products += posteriors.T @ posteriors

    def matrix(self) -> np.ndarray:
        """Return the covariance matrix, (C, C) float64.

        Raises:
            ValueError: no batch was added.
        """
        if not self.count:
            raise ValueError("no predictions were added")
        mean = self.sums / self.count
        return (self.products / self.count - mean.outer(mean)).numpy()


class Confusions:
    """Mean posteriors of each class's examples, as an alternative to the paper's covariance."""

    def __init__(self, num_classes: int) -> None:
        self.sums = torch.zeros(num_classes, num_classes, dtype=torch.float64)

    def add(self, posteriors: Tensor, labels: Tensor) -> None:
        """Add the posteriors (N, C) and labels (N,) of a batch."""
        self.sums.index_add_(0, labels.cpu(), posteriors.double().cpu())

    def matrix(self) -> np.ndarray:
        """Return the mean probability that examples of either class give to the other, (C, C) symmetric."""
        examples = self.sums.sum(1, keepdim=True).clamp_min(1)
        means = self.sums / examples
        return ((means + means.T) / 2).numpy()


def cluster(
    similarity: np.ndarray, count: int, method: str = "kmeans", seed: int = 0, size: int = 0
) -> list[np.ndarray]:
    """Return groups of similar classes.

    Args:
        similarity: (C, C) symmetric, larger for more similar classes.
        count: number of groups.
        method: "kmeans", on-line k-means on the columns, as in the paper; "spectral"; "agglomerative", with average
            linkage.
        seed: of k-means and spectral clustering.
        size: classes per group: those most similar to the members of a cluster, so that a class may be in several
            groups or in none (as in the paper: 61 specialists with 300 of 15,000 classes); 0: the clusters themselves.

    Returns:
        The classes of each group in ascending order, the largest group first.  There are fewer than ``count`` groups if
        some clusters are empty.

    Raises:
        UserError: there are more groups than classes, or fewer than two; or a group would have all classes.
    """
    classes = len(similarity)
    if not 2 <= count <= classes:
        raise UserError(f"{count} specialists for {classes} classes: give 2 to {classes}")
    if not 0 <= size < classes:
        raise UserError(f"specialists with {size} of {classes} classes: give --size 1 to {classes - 1}, or 0")
    labels = _METHODS[method](similarity, count, seed)
    groups = [np.flatnonzero(labels == label) for label in range(count)]
    groups = [group for group in groups if len(group)]
    if len(groups) < count:
        logging.warning(
            "%d of %d clusters are empty: there will be %d specialists", count - len(groups), count, len(groups)
        )
    if size:
        correlations = correlation(similarity)
        groups = [np.sort(np.argsort(-correlations[:, group].mean(1), kind="stable")[:size]) for group in groups]
    return sorted(groups, key=lambda group: (-len(group), group[0]))


def correlation(similarity: np.ndarray) -> np.ndarray:
    """Return the correlations (C, C), from −1 to 1, for a covariance matrix."""
    deviations = np.sqrt(np.maximum(np.diag(similarity), np.finfo(float).tiny))
    return np.clip(similarity / np.outer(deviations, deviations), -1, 1)


def _kmeans(similarity: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import MiniBatchKMeans

    # Columns are normalised: otherwise a frequent class would be similar to no rare one.
    columns = similarity / np.maximum(np.linalg.norm(similarity, axis=1, keepdims=True), np.finfo(float).tiny)
    return MiniBatchKMeans(count, random_state=seed, n_init=10, batch_size=1024).fit_predict(columns)


def _spectral(similarity: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import SpectralClustering

    model = SpectralClustering(count, affinity="precomputed", random_state=seed, assign_labels="cluster_qr")
    return model.fit_predict(np.maximum(correlation(similarity), 1e-3))  # the graph must be connected


def _agglomerative(similarity: np.ndarray, count: int, seed: int) -> np.ndarray:
    from sklearn.cluster import AgglomerativeClustering

    distance = 1 - correlation(similarity)
    return AgglomerativeClustering(count, metric="precomputed", linkage="average").fit_predict(distance)


_METHODS = {"kmeans": _kmeans, "spectral": _spectral, "agglomerative": _agglomerative}
