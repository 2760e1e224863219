"""Diagonal-covariance Gaussian mixtures, one per pdf, as packed arrays: scores, EM and growth.

Means, variances and weights of all mixtures lie one after the other, so that every step is a few matrix
products.  The update rules and their constants are Kaldi's (mle-diag-gmm.cc, model-common.cc).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np

MIN_OCCUPANCY = 10.0  # frames; a Gaussian with fewer is removed
MIN_WEIGHT = 1e-5
# A pdf's share of the Gaussians grows with its frames to this power.  Kaldi's 0.25 leaves silence, a third of all
# frames, too few: pauses leak into the phones beside them.
SPLIT_POWER = 0.5
SPLIT_MIN_FRAMES = 20.0  # frames per Gaussian that growth must leave
PERTURB = 0.01  # standard deviations by which the halves of a split Gaussian part


@dataclass
class Gmms:
    """C mixtures of G Gaussians in all.

    Attributes:
        starts: (C + 1,) where each pdf's Gaussians begin.
        weights: (G,) float64, summing to one in each pdf.
        means: (G, D) float64.
        variances: (G, D) float64.
    """

    starts: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    @property
    def num_pdfs(self) -> int:
        return len(self.starts) - 1

    @property
    def dim(self) -> int:
        return int(self.means.shape[1])

    def __post_init__(self) -> None:
        inverse = 1 / self.variances
        self.inverse_variances = inverse.astype(np.float32)
        self.means_inverse_variances = (self.means * inverse).astype(np.float32)
        constants = np.log(self.weights) - 0.5 * (
            self.dim * np.log(2 * np.pi) + np.log(self.variances).sum(1) + (self.means**2 * inverse).sum(1)
        )
        self.constants = constants.astype(np.float32)
        #: (G, 2D + 1); times ``augment``, the weighted log-likelihoods of the Gaussians.
        self.parameters = np.hstack([self.means_inverse_variances, self.inverse_variances, self.constants[:, None]])

    def scores(self, frames: np.ndarray, pdfs: np.ndarray | None = None) -> np.ndarray:
        """Log-likelihoods (T, C) float32 of frames (T, D), or (T, len(pdfs)) for some pdfs only."""
        pdfs = np.arange(self.num_pdfs) if pdfs is None else pdfs
        counts = np.diff(self.starts)[pdfs]
        inputs = augment(frames)
        out = np.empty((len(pdfs), len(frames)), dtype=np.float32)
        # Mixtures of one size at a time: then all steps run over whole arrays.
        for size in np.unique(counts):
            rows = np.flatnonzero(counts == size)
            chosen = self.starts[pdfs[rows], None] + np.arange(size)
            terms = (self.parameters[chosen.reshape(-1)] @ inputs).reshape(len(rows), size, -1)
            best = terms.max(1)
            terms -= best[:, None]
            out[rows] = best + np.log(np.exp(terms, out=terms).sum(1))
        return np.ascontiguousarray(out.T)


def augment(frames: np.ndarray) -> np.ndarray:
    """(T, D) -> (2D + 1, T) float32: x, −x²/2 and 1, of which log-likelihoods are linear functions."""
    frames = np.asarray(frames, dtype=np.float32)
    return np.vstack([frames.T, -0.5 * np.square(frames.T), np.ones((1, len(frames)), np.float32)])


@dataclass
class Accumulators:
    """Sufficient statistics of ``Gmms``: (G,) occupation, (G, D) sums of x and of x², frames, log-likelihood."""

    occupation: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    frames: float = 0.0
    log_likelihood: float = 0.0

    @classmethod
    def zeros(cls, gmms: Gmms) -> Accumulators:
        shape = gmms.means.shape
        return cls(np.zeros(shape[0]), np.zeros(shape), np.zeros(shape))

    def __iadd__(self, other: Accumulators) -> Accumulators:
        self.occupation += other.occupation
        self.sums += other.sums
        self.squares += other.squares
        self.frames += other.frames
        self.log_likelihood += other.log_likelihood
        return self


def accumulate(gmms: Gmms, frames: np.ndarray, labels: np.ndarray) -> Accumulators:
    """E step for frames (T, D) whose pdfs are known, labels (T,)."""
    result = Accumulators.zeros(gmms)
    order = np.argsort(labels, kind="stable")
    frames, bounds = frames[order], np.searchsorted(labels[order], np.arange(gmms.num_pdfs + 1))
    inputs = augment(frames)
    squares = np.square(frames)
    for pdf in np.flatnonzero(np.diff(bounds)):
        mine = slice(bounds[pdf], bounds[pdf + 1])
        span = slice(gmms.starts[pdf], gmms.starts[pdf + 1])
        posteriors = gmms.parameters[span] @ inputs[:, mine]  # (M, n)
        best = posteriors.max(0)
        np.exp(posteriors - best, out=posteriors)
        total = posteriors.sum(0)
        posteriors /= total
        result.occupation[span] = posteriors.sum(1)
        result.sums[span] = posteriors @ frames[mine]
        result.squares[span] = posteriors @ squares[mine]
        result.log_likelihood += float((best + np.log(total)).sum(dtype=np.float64))
    result.frames = len(labels)
    return result


def update(gmms: Gmms, stats: Accumulators, variance_floor: np.ndarray) -> Gmms:
    """M step: maximum likelihood with floors (D,); Gaussians seen in too few frames go, but one a pdf stays."""
    pdf_of = np.repeat(np.arange(gmms.num_pdfs), np.diff(gmms.starts))
    occupation = np.maximum(stats.occupation, 1e-10)[:, None]
    means = stats.sums / occupation
    variances = np.maximum(stats.squares / occupation - means**2, variance_floor)
    enough = stats.occupation >= MIN_OCCUPANCY
    # A pdf without any Gaussian left keeps its busiest one as it was.
    best = np.lexsort((stats.occupation, pdf_of))[gmms.starts[1:] - 1]
    rescued = best[~np.logical_or.reduceat(enough, gmms.starts[:-1])]
    means[rescued], variances[rescued] = gmms.means[rescued], gmms.variances[rescued]
    keep = enough.copy()
    keep[rescued] = True
    totals = np.add.reduceat(np.where(keep, np.maximum(stats.occupation, 1e-10), 0), gmms.starts[:-1])
    weights = np.maximum(np.maximum(stats.occupation, 1e-10) / totals[pdf_of], MIN_WEIGHT)[keep]
    starts = np.concatenate([[0], np.cumsum(np.bincount(pdf_of[keep], minlength=gmms.num_pdfs))])
    weights /= np.repeat(np.add.reduceat(weights, starts[:-1]), np.diff(starts))
    return Gmms(starts, weights, means[keep], variances[keep])


def grow(gmms: Gmms, pdf_frames: np.ndarray, target: int, rng: np.random.Generator) -> Gmms:
    """Split Gaussians until there are ``target`` in all, more for pdfs with more frames (C,)."""
    counts = np.diff(gmms.starts)
    goals = _goals(counts, pdf_frames, target)
    parts = []
    for pdf in range(gmms.num_pdfs):
        span = slice(gmms.starts[pdf], gmms.starts[pdf + 1])
        weights, means, variances = gmms.weights[span], gmms.means[span], gmms.variances[span]
        for _ in range(goals[pdf] - counts[pdf]):
            heaviest = int(np.argmax(weights))
            weights = np.append(weights, weights[heaviest] / 2)
            weights[heaviest] /= 2
            shift = PERTURB * np.sqrt(variances[heaviest]) * rng.standard_normal(gmms.dim)
            means = np.vstack([means, means[heaviest] + shift])
            means[heaviest] -= shift
            variances = np.vstack([variances, variances[heaviest]])
        parts.append((weights, means, variances))
    starts = np.concatenate([[0], np.cumsum(goals)])
    return Gmms(starts, *(np.concatenate(part) for part in zip(*parts, strict=True)))


def _goals(counts: np.ndarray, pdf_frames: np.ndarray, target: int) -> np.ndarray:
    """Gaussians that each pdf should have: one after the other to the pdf with most frames^power each."""
    goals = counts.copy()
    power = pdf_frames**SPLIT_POWER
    heap = [(-power[i] / goals[i], i) for i in range(len(goals))]
    heapq.heapify(heap)
    total = int(goals.sum())
    while total < target and heap:
        _, pdf = heapq.heappop(heap)
        if pdf_frames[pdf] >= SPLIT_MIN_FRAMES * (goals[pdf] + 1):
            goals[pdf] += 1
            total += 1
            heapq.heappush(heap, (-power[pdf] / goals[pdf], pdf))
    return goals


def single_gaussians(counts: np.ndarray, sums: np.ndarray, squares: np.ndarray, floor: np.ndarray) -> Gmms:
    """One Gaussian per pdf from its statistics: (C,) frames, (C, D) sums of x and x²; an unseen pdf gets
    the Gaussian of all frames."""
    seen = counts >= MIN_OCCUPANCY
    overall = sums.sum(0) / counts.sum()
    spread = squares.sum(0) / counts.sum() - overall**2
    divisor = np.maximum(counts, 1)[:, None]
    means = np.where(seen[:, None], sums / divisor, overall)
    variances = np.where(seen[:, None], squares / divisor - means**2, spread)
    return Gmms(np.arange(len(counts) + 1), np.ones(len(counts)), means, np.maximum(variances, floor))
