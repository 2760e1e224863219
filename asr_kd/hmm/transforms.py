"""Linear transforms of GMM features: LDA, MLLT, and fMLLR for each speaker; float64 throughout.

- LDA: Haeb-Umbach and Ney, Linear discriminant analysis for improved large vocabulary continuous speech recognition,
  ICASSP 1992.
- MLLT (semi-tied covariances): Gales, Semi-tied covariance matrices for hidden Markov models, 1999.
- fMLLR (constrained MLLR): Gales, Maximum likelihood linear transformations for HMM-based speech recognition, 1998.

MLLT and fMLLR maximise the same auxiliary function, row by row: that of MLLT has no linear term and no offset.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import numpy as np

from asr_kd.hmm.gmm import Gmms, gaussian_posteriors

#: A speaker with fewer frames of speech (5 s) keeps the identity (Kaldi's --fmllr-min-count).
MIN_FRAMES = 500
#: Sweeps over all rows, at most, and the gain per frame below which they end.
SWEEPS, SMALLEST_GAIN = 40, 1e-6


@dataclass
class ClassStatistics:
    """Sufficient statistics of LDA.

    Attributes:
        counts: (C,) frames of each class.
        sums: (C, D) Σx of each class.
        squares: (D, D) Σxxᵀ of all frames.
    """

    counts: np.ndarray
    sums: np.ndarray
    squares: np.ndarray

    @classmethod
    def zeros(cls, classes: int, dim: int) -> ClassStatistics:
        return cls(np.zeros(classes), np.zeros((classes, dim)), np.zeros((dim, dim)))

    def add(self, frames: np.ndarray, labels: np.ndarray) -> None:
        """Add frames (T, D) of the classes ``labels`` (T,)."""
        frames = frames.astype(np.float64)
        self.counts += np.bincount(labels, minlength=len(self.counts))
        np.add.at(self.sums, labels, frames)
        self.squares += frames.T @ frames

    def __iadd__(self, other: ClassStatistics) -> ClassStatistics:
        self.counts += other.counts
        self.sums += other.sums
        self.squares += other.squares
        return self


def lda(stats: ClassStatistics, dim: int) -> np.ndarray:
    """(dim, D): the directions with the largest ratio of between- to within-class variance, which becomes 1.

    Directions without variance within the classes, as those of constant features, are left out of the ratio.
    """
    total = stats.counts.sum()
    mean = stats.sums.sum(0) / total
    between = (stats.sums / np.maximum(stats.counts, 1)[:, None]).T @ stats.sums / total - np.outer(mean, mean)
    within = stats.squares / total - np.outer(mean, mean) - between
    values, vectors = np.linalg.eigh(within)
    whiten = (vectors / np.sqrt(np.maximum(values, 1e-8 * values[-1]))).T
    _, directions = np.linalg.eigh(whiten @ between @ whiten.T)
    rows = directions[:, ::-1][:, :dim].T @ whiten
    signs = np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(1)])
    return np.asarray(rows * signs[:, None])


@dataclass
class RowStatistics:
    """Sufficient statistics of a transform W (D, E) of features x⁺ (E,), which are x, with a 1 behind it for fMLLR.

    Attributes:
        frames: their number.
        linear: (D, E) Σ γ μ/σ² x⁺ of each row.
        quadratic: (D, E, E) Σ γ/σ² x⁺x⁺ᵀ of each row.
    """

    frames: float
    linear: np.ndarray
    quadratic: np.ndarray

    def __iadd__(self, other: RowStatistics) -> RowStatistics:
        self.frames += other.frames
        self.linear += other.linear
        self.quadratic += other.quadratic
        return self

    def auxiliary(self, transform: np.ndarray) -> float:
        """The log-likelihood of the frames under W, up to a constant: N log|det A| + Σ w k − ½ Σ w G wᵀ."""
        _, log_det = np.linalg.slogdet(transform[:, : len(transform)])
        square = np.einsum("de,def,df->", transform, self.quadratic, transform)
        return float(self.frames * log_det + (transform * self.linear).sum() - 0.5 * square)


def maximise(stats: RowStatistics, transform: np.ndarray) -> np.ndarray:
    """The transform (D, E) with the largest auxiliary function, from a first one; each row is updated in turn."""
    transform, dim = transform.astype(np.float64), len(transform)
    scale = np.trace(stats.quadratic, axis1=1, axis2=2) / stats.quadratic.shape[1]
    inverses = np.linalg.inv(stats.quadratic + 1e-10 * scale[:, None, None] * np.eye(stats.quadratic.shape[1]))
    constants = np.einsum("de,def->df", stats.linear, inverses)
    best = stats.auxiliary(transform)
    for _ in range(SWEEPS):
        inverse = np.linalg.inv(transform[:, :dim])
        for row in range(dim):
            cofactors = inverse[:, row].copy()  # up to det A, which the factor takes in
            direction = cofactors @ inverses[row, :dim]
            square, product = cofactors @ direction[:dim], direction @ stats.linear[row]
            best_row = _best_factor(float(square), float(product), stats.frames) * direction + constants[row]
            # The inverse of a matrix of which one row changes (Sherman and Morrison 1950).
            change = (best_row[:dim] - transform[row, :dim]) @ inverse
            inverse -= np.outer(cofactors, change / (1 + change[row]))
            transform[row] = best_row
        before, best = best, stats.auxiliary(transform)
        if best - before < SMALLEST_GAIN * stats.frames:
            break
    return transform


def _best_factor(square: float, product: float, frames: float) -> float:
    """The α for which the row (α c + k) G⁻¹ maximises the auxiliary function, the others being fixed.

    Args:
        square: c G⁻¹ cᵀ, c the cofactors of the row.
        product: c G⁻¹ kᵀ.
    """
    root = math.sqrt(product**2 + 4 * square * frames)
    factors = (-product + root) / (2 * square), (-product - root) / (2 * square)
    tiny = sys.float_info.min  # one of the two determinants may have been cancelled out
    return max(factors, key=lambda a: frames * math.log(max(abs(a * square + product), tiny)) - 0.5 * a**2 * square)


def fmllr_statistics(
    gmms: Gmms, frames: np.ndarray, labels: np.ndarray, adapted: np.ndarray, model: Gmms
) -> RowStatistics:
    """The statistics of a speaker's transform.

    Args:
        gmms: the Gaussians that the transformed frames shall fit.
        frames: (T, D) without a transform.
        labels: (T,) pdfs.
        adapted: (T, D) the frames that the Gaussians' posteriors are those of.
        model: with the same Gaussians, those that ``adapted`` fits.
    """
    extended = np.hstack([frames, np.ones((len(frames), 1))]).astype(np.float64)
    precisions, weighted = np.zeros(frames.shape), np.zeros(frames.shape)
    inverse = 1 / gmms.variances
    for rows, span, posteriors, _ in gaussian_posteriors(model, adapted, labels):
        precisions[rows] = posteriors.T @ inverse[span]
        weighted[rows] = posteriors.T @ (gmms.means[span] * inverse[span])
    return RowStatistics(len(frames), weighted.T @ extended, _weighted_squares(extended, precisions))


def fmllr(stats: RowStatistics | None, dim: int) -> np.ndarray:
    """The transform (dim, dim + 1) of a speaker; the identity if there is too little speech."""
    identity = np.eye(dim, dim + 1)
    return identity if stats is None or stats.frames < MIN_FRAMES else maximise(stats, identity)


def apply_fmllr(frames: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """(T, D) float32: frames after a transform (D, D + 1)."""
    transform = transform.astype(np.float32)
    return np.asarray(frames @ transform[:, :-1].T + transform[:, -1])


def mllt_statistics(gmms: Gmms, frames: np.ndarray, labels: np.ndarray) -> RowStatistics:
    """The statistics of a transform (D, D) of the frames (T, D) and of the means of the Gaussians."""
    frames = frames.astype(np.float64)
    precisions, inverse = np.zeros(frames.shape), 1 / gmms.variances
    occupation, sums = np.zeros(len(gmms.means)), np.zeros(gmms.means.shape)
    for rows, span, posteriors, _ in gaussian_posteriors(gmms, frames, labels):
        posteriors = posteriors.astype(np.float64)
        precisions[rows] = posteriors.T @ inverse[span]
        occupation[span], sums[span] = posteriors.sum(1), posteriors @ frames[rows]
    quadratic = _weighted_squares(frames, precisions)
    for row, weights in enumerate(inverse.T):  # Σ γ (x − μ)(x − μ)ᵀ/σ², from Σ γ xxᵀ/σ²
        cross = (sums * weights[:, None]).T @ gmms.means
        quadratic[row] -= cross + cross.T - (gmms.means * (occupation * weights)[:, None]).T @ gmms.means
    return RowStatistics(len(frames), np.zeros((gmms.dim, gmms.dim)), quadratic)


def _weighted_squares(frames: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(D, E, E) Σ w xxᵀ for each column of the weights (T, D); frames (T, E)."""
    return np.stack([(frames * column[:, None]).T @ frames for column in weights.T])
