"""Linear transforms of GMM features: LDA, MLLT, and fMLLR for each speaker; float64 throughout.

- LDA: Haeb-Umbach and Ney, Linear discriminant analysis for improved large vocabulary continuous speech recognition,
  ICASSP 1992.
- MLLT (semi-tied covariances): Gales, Semi-tied covariance matrices for hidden Markov models, 1999.
- fMLLR (constrained MLLR): Gales, Maximum likelihood linear transformations for HMM-based speech recognition, 1998.

MLLT and fMLLR maximise the same auxiliary function, row by row: that of MLLT has no linear term and no offset.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asr_kd.hmm.gmm import Gmms, gaussian_posteriors

#: A speaker with fewer frames of speech (5 s) keeps the identity (Kaldi's --fmllr-min-count).
MIN_FRAMES = 500
#: Sweeps over all rows, at most, and the gain per frame below which they end.
SWEEPS, SMALLEST_GAIN = 40, 1e-6
#: Frames whose products stay in the cache.
BLOCK = 128


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
        square = _times(transform, self.quadratic) * transform
        return float(self.frames * log_det + (transform * self.linear).sum() - 0.5 * square.sum())


def maximise(stats: Sequence[RowStatistics], transform: np.ndarray) -> np.ndarray:
    """The transforms (N, D, E) with the largest auxiliary functions, from a first one (D, E).

    Each row is updated in turn, in all transforms at once: given the others, the best one is (α c + k) G⁻¹, c being its
    cofactors.
    """
    frames = np.array([one.frames for one in stats])
    linear, quadratic = np.stack([one.linear for one in stats]), np.stack([one.quadratic for one in stats])
    dim, width = transform.shape
    transforms = np.repeat(transform[None].astype(np.float64), len(stats), axis=0)
    scale = np.trace(quadratic, axis1=2, axis2=3) / width
    inverses = np.linalg.inv(quadratic + 1e-10 * scale[..., None, None] * np.eye(width))
    constants = _times(linear, inverses)
    left = np.arange(len(stats))  # those that still gain
    best = np.array([one.auxiliary(transform) for one in stats])
    for _ in range(SWEEPS):
        own, number = transforms[left], frames[left]
        inverse, value = np.linalg.inv(own[..., :dim]), np.zeros(len(left))
        for row in range(dim):
            cofactors = inverse[..., row].copy()  # up to det A, which the factor takes in
            direction = _times(cofactors, inverses[left, row, :dim])
            square, product = _dot(cofactors, direction[:, :dim]), _dot(direction, linear[left, row])
            # Of the two factors that are stationary, the one with the larger determinant and the shorter row.
            factor = 2 * number / (product + np.copysign(np.sqrt(product**2 + 4 * square * number), product))
            best_row = factor[:, None] * direction + constants[left, row]
            # The inverse of a matrix of which one row changes (Sherman and Morrison 1950).
            change = _times(best_row[:, :dim] - own[:, row, :dim], inverse)
            inverse -= cofactors[..., None] * (change / (1 + change[:, row, None]))[:, None]
            own[:, row] = best_row
            value -= 0.5 * factor * (factor * square + product)
        transforms[left] = own
        value += 0.5 * (own * linear[left]).sum((1, 2))  # with it Σ w k − ½ Σ w G wᵀ, since G wᵀ = α c + k
        before, best = best, value + number * np.linalg.slogdet(own[..., :dim])[1]
        gains = best - before >= SMALLEST_GAIN * number
        left, best = left[gains], best[gains]
        if not len(left):
            break
    return transforms


def _times(vectors: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """(…, E): the product of each of the vectors (…, D) and its matrix (…, D, E)."""
    return np.asarray((vectors[..., None, :] @ matrices)[..., 0, :])


def _dot(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.asarray(np.einsum("...d,...d->...", first, second))


def fmllr_statistics(
    gmms: Gmms, frames: np.ndarray, labels: np.ndarray, adapted: np.ndarray, model: Gmms, speakers: np.ndarray,
    utterances: np.ndarray | None = None,
) -> dict[int, RowStatistics]:  # fmt: skip
    """The statistics of speakers' transforms.

    Args:
        gmms: the Gaussians that the transformed frames shall fit.
        frames: (T, D) without a transform.
        labels: (T,) pdfs.
        adapted: (T, D) the frames that the Gaussians' posteriors are those of.
        model: with the same Gaussians, those that ``adapted`` fits.
        speakers: (T,) numbers of those who speak.
        utterances: (T,) ascending numbers, if there are several (``parts`` of ``gaussian_posteriors``).
    """
    dim = frames.shape[1]
    inverse = 1 / gmms.variances
    parameters, weights = np.hstack([inverse, gmms.means * inverse]), np.empty((len(frames), 2 * dim))
    for rows, span, posteriors, *_ in gaussian_posteriors(model, adapted, labels, utterances):
        weights[rows] = posteriors.T @ parameters[span]
    extended = np.hstack([frames, np.ones((len(frames), 1))]).astype(np.float64)
    total = {}
    for speaker in np.unique(speakers).tolist():
        rows = np.flatnonzero(speakers == speaker)
        own, (precisions, weighted) = extended[rows], np.hsplit(weights[rows], 2)
        total[speaker] = RowStatistics(len(rows), weighted.T @ own, _weighted_squares(own, precisions))
    return total


def fmllr(stats: Sequence[RowStatistics | None], dim: int) -> np.ndarray:
    """The transforms (N, dim, dim + 1) of speakers; the identity for whom there is too little speech."""
    identity = np.eye(dim, dim + 1)
    enough = [one for one in stats if one is not None and one.frames >= MIN_FRAMES]
    found = iter(maximise(enough, identity) if enough else ())
    return np.stack([identity if one is None or one.frames < MIN_FRAMES else next(found) for one in stats])


def apply_fmllr(frames: np.ndarray, transform: np.ndarray) -> np.ndarray:
    """(T, D) float32: frames after a transform (D, D + 1)."""
    transform = transform.astype(np.float32)
    return np.asarray(frames @ transform[:, :-1].T + transform[:, -1])


def mllt_statistics(gmms: Gmms, frames: np.ndarray, labels: np.ndarray) -> RowStatistics:
    """The statistics of a transform (D, D) of the frames (T, D) and of the means of the Gaussians."""
    frames = frames.astype(np.float64)
    precisions, inverse = np.zeros(frames.shape), 1 / gmms.variances
    occupation, sums = np.zeros(len(gmms.means)), np.zeros(gmms.means.shape)
    for rows, span, posteriors, *_ in gaussian_posteriors(gmms, frames, labels):
        posteriors = posteriors.astype(np.float64)
        precisions[rows] = posteriors.T @ inverse[span]
        occupation[span], sums[span] = posteriors.sum(1), posteriors @ frames[rows]
    quadratic = _weighted_squares(frames, precisions)
    sums -= 0.5 * gmms.means * occupation[:, None]
    for row, weights in enumerate(inverse.T):  # Σ γ (x − μ)(x − μ)ᵀ/σ², from Σ γ xxᵀ/σ²
        cross = (sums * weights[:, None]).T @ gmms.means
        quadratic[row] -= cross + cross.T
    return RowStatistics(len(frames), np.zeros((gmms.dim, gmms.dim)), quadratic)


def _weighted_squares(frames: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(D, E, E) Σ w xxᵀ for each column of the weights (T, D); frames (T, E)."""
    width = frames.shape[1]
    ends = np.cumsum(range(width, 0, -1))
    packed = np.zeros((ends[-1], weights.shape[1]))  # of a symmetric matrix, what is above the diagonal
    products = np.empty((ends[-1], BLOCK))
    for first in range(0, len(frames), BLOCK):
        block = np.ascontiguousarray(frames[first : first + BLOCK].T)
        own = products[:, : block.shape[1]]
        for i, end in enumerate(ends):
            np.multiply(block[i], block[i:], out=own[end - width + i : end])
        packed += own @ weights[first : first + BLOCK]
    rows, columns = np.triu_indices(width)
    squares = np.empty((weights.shape[1], width, width))
    squares[:, rows, columns] = squares[:, columns, rows] = packed.T
    return squares
