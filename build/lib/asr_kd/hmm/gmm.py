"""Diagonal-covariance GMMs, one per pdf, in packed arrays: log-likelihoods, EM updates and mixture splitting.

The weights, means and variances of all mixtures are concatenated, so that every step takes a few matrix products.
The update rules and their constants are those of Kaldi (mle-diag-gmm.cc, model-common.cc).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

MIN_OCCUPANCY = 10.0  # frames; Gaussians with a lower occupation count are removed
MIN_WEIGHT = 1e-5
# The number of Gaussians of a pdf is proportional to its occupation count to this power.  Kaldi's 0.25 gives too few
# Gaussians to silence, which is a third of all frames: pauses leak into the neighbouring phones.
SPLIT_POWER = 0.5
SPLIT_MIN_FRAMES = 20.0  # minimum number of frames per Gaussian after splitting
PERTURBATION = 0.01  # offset of the two means after a split, in standard deviations


@dataclass
class Gmms:
    """C mixtures with G Gaussians in total.

    Attributes:
        starts: (C + 1,) index of the first Gaussian of each pdf.
        weights: (G,) float64; they sum to one within each pdf.
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
        #: (G, 2D + 1); multiplied by ``quadratic_expansion``, the weighted log-likelihoods of the Gaussians.
        self.parameters = np.hstack([self.means_inverse_variances, self.inverse_variances, self.constants[:, None]])

    def scores(self, frames: np.ndarray, pdfs: np.ndarray | None = None) -> np.ndarray:
        """Return the log-likelihoods (T, C) float32 of frames (T, D), or (T, len(pdfs)) of a subset of pdfs."""
        pdfs = np.arange(self.num_pdfs) if pdfs is None else pdfs
        counts = np.diff(self.starts)[pdfs]
        inputs = quadratic_expansion(frames)
        out = np.empty((len(pdfs), len(frames)), dtype=np.float32)
        # All mixtures with the same number of Gaussians are computed at once.
        for size in np.unique(counts):
            rows = np.flatnonzero(counts == size)
            gaussians = self.starts[pdfs[rows], None] + np.arange(size)
            terms = (self.parameters[gaussians.reshape(-1)] @ inputs).reshape(len(rows), size, -1)
            maximum = terms.max(1)
            terms -= maximum[:, None]
            out[rows] = maximum + np.log(np.exp(terms, out=terms).sum(1))
        return np.ascontiguousarray(out.T)


def quadratic_expansion(frames: np.ndarray) -> np.ndarray:
    """(T, D) -> (2D + 1, T) float32: x, −x²/2 and 1; Gaussian log-likelihoods are linear in them."""
    frames = np.asarray(frames, dtype=np.float32)
    return np.vstack([frames.T, -0.5 * np.square(frames.T), np.ones((1, len(frames)), np.float32)])


@dataclass
class Accumulators:
    """Sufficient statistics of ``Gmms``.

    Attributes:
        occupation: (G,) occupation counts.
        sums: (G, D) posterior-weighted sums of x.
        squares: (G, D) posterior-weighted sums of x².
        frames: number of frames.
        log_likelihood: sum over the frames.
    """

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


def gaussian_posteriors(
    gmms: Gmms, frames: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[np.ndarray, slice, np.ndarray, float]]:
    """Yield, for each pdf in ``labels`` (T,): its n frames, its Gaussians, their posteriors (M, n), log-likelihood."""
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(gmms.num_pdfs + 1))
    inputs = quadratic_expansion(frames[order])
    for pdf in np.flatnonzero(np.diff(bounds)):
        rows = slice(bounds[pdf], bounds[pdf + 1])
        span = slice(gmms.starts[pdf], gmms.starts[pdf + 1])
        posteriors = gmms.parameters[span] @ inputs[:, rows]  # (M, n)
        maximum = posteriors.max(0)
        np.exp(posteriors - maximum, out=posteriors)
        total = posteriors.sum(0)
        posteriors /= total
        yield order[rows], span, posteriors, float((maximum + np.log(total)).sum(dtype=np.float64))


def accumulate(gmms: Gmms, frames: np.ndarray, labels: np.ndarray, other: np.ndarray | None = None) -> Accumulators:
    """E step: the sufficient statistics of frames (T, D) that are aligned with the pdfs ``labels`` (T,).

    With ``other`` (T, D), posteriors are those of ``frames``, and the statistics those of ``other``.
    """
    result = Accumulators.zeros(gmms)
    values = frames if other is None else other
    for rows, span, posteriors, log_likelihood in gaussian_posteriors(gmms, frames, labels):
        observed = values[rows]
        result.occupation[span] = posteriors.sum(1)
        result.sums[span] = posteriors @ observed
        result.squares[span] = posteriors @ np.square(observed)
        result.log_likelihood += log_likelihood
    result.frames = len(labels)
    return result


def mle_update(gmms: Gmms, stats: Accumulators, variance_floor: np.ndarray) -> Gmms:
    """M step: maximum-likelihood estimates with a variance floor (D,).

    Gaussians with too low an occupation count are removed, except for the last one of a pdf.
    """
    pdf_of = np.repeat(np.arange(gmms.num_pdfs), np.diff(gmms.starts))
    occupation = np.maximum(stats.occupation, 1e-10)[:, None]
    means = stats.sums / occupation
    variances = np.maximum(stats.squares / occupation - means**2, variance_floor)
    enough = stats.occupation >= MIN_OCCUPANCY
    # A pdf that would lose all its Gaussians keeps the one with the highest occupation count, unchanged.
    highest = np.lexsort((stats.occupation, pdf_of))[gmms.starts[1:] - 1]
    rescued = highest[~np.logical_or.reduceat(enough, gmms.starts[:-1])]
    means[rescued], variances[rescued] = gmms.means[rescued], gmms.variances[rescued]
    keep = enough.copy()
    keep[rescued] = True
    totals = np.add.reduceat(np.where(keep, np.maximum(stats.occupation, 1e-10), 0), gmms.starts[:-1])
    weights = np.maximum(np.maximum(stats.occupation, 1e-10) / totals[pdf_of], MIN_WEIGHT)[keep]
    starts = np.concatenate([[0], np.cumsum(np.bincount(pdf_of[keep], minlength=gmms.num_pdfs))])
    weights /= np.repeat(np.add.reduceat(weights, starts[:-1]), np.diff(starts))
    return Gmms(starts, weights, means[keep], variances[keep])


def moved(gmms: Gmms, stats: Accumulators, variance_floor: np.ndarray) -> Gmms:
    """The same Gaussians with the means and variances of other features; those with too few frames stay as they are."""
    enough = (stats.occupation >= MIN_OCCUPANCY)[:, None]
    occupation = np.maximum(stats.occupation, MIN_OCCUPANCY)[:, None]
    means = stats.sums / occupation
    variances = np.maximum(stats.squares / occupation - means**2, variance_floor)
    return Gmms(
        gmms.starts, gmms.weights, np.where(enough, means, gmms.means), np.where(enough, variances, gmms.variances)
    )


def mix_up(gmms: Gmms, pdf_frames: np.ndarray, target: int, rng: np.random.Generator) -> Gmms:
    """Split Gaussians until there are ``target`` in total; pdfs with more frames (C,) get more of them."""
    counts = np.diff(gmms.starts)
    targets = _split_targets(counts, pdf_frames, target)
    parts = []
    for pdf in range(gmms.num_pdfs):
        span = slice(gmms.starts[pdf], gmms.starts[pdf + 1])
        weights, means, variances = gmms.weights[span], gmms.means[span], gmms.variances[span]
        for _ in range(targets[pdf] - counts[pdf]):
            heaviest = int(np.argmax(weights))
            weights = np.append(weights, weights[heaviest] / 2)
            weights[heaviest] /= 2
            shift = PERTURBATION * np.sqrt(variances[heaviest]) * rng.standard_normal(gmms.dim)
            means = np.vstack([means, means[heaviest] + shift])
            means[heaviest] -= shift
            variances = np.vstack([variances, variances[heaviest]])
        parts.append((weights, means, variances))
    starts = np.concatenate([[0], np.cumsum(targets)])
    return Gmms(starts, *(np.concatenate(part) for part in zip(*parts, strict=True)))


def _split_targets(counts: np.ndarray, pdf_frames: np.ndarray, target: int) -> np.ndarray:
    """Number of Gaussians per pdf: each new one goes to the pdf with the largest frames^SPLIT_POWER per Gaussian."""
    targets = counts.copy()
    power = pdf_frames**SPLIT_POWER
    heap = [(-power[i] / targets[i], i) for i in range(len(targets))]
    heapq.heapify(heap)
    total = int(targets.sum())
    while total < target and heap:
        _, pdf = heapq.heappop(heap)
        if pdf_frames[pdf] >= SPLIT_MIN_FRAMES * (targets[pdf] + 1):
            targets[pdf] += 1
            total += 1
            heapq.heappush(heap, (-power[pdf] / targets[pdf], pdf))
    return targets


def single_gaussians(counts: np.ndarray, sums: np.ndarray, squares: np.ndarray, floor: np.ndarray) -> Gmms:
    """One Gaussian per pdf from its sufficient statistics: (C,) frames, (C, D) sums of x and of x².

    A pdf with too few frames gets the Gaussian of all frames.
    """
    seen = counts >= MIN_OCCUPANCY
    overall = sums.sum(0) / counts.sum()
    spread = squares.sum(0) / counts.sum() - overall**2
    divisor = np.maximum(counts, 1)[:, None]
    means = np.where(seen[:, None], sums / divisor, overall)
    variances = np.where(seen[:, None], squares / divisor - means**2, spread)
    return Gmms(np.arange(len(counts) + 1), np.ones(len(counts)), means, np.maximum(variances, floor))
