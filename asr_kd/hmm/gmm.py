"""Diagonal-covariance GMMs, one per pdf, in packed arrays: log-likelihoods, EM updates and mixture splitting.

The weights, means and variances of all mixtures are concatenated, so that every step takes a few matrix products.
The update rules and their constants are those of Kaldi (mle-diag-gmm.cc, model-common.cc).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

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
        #: (G, 2D + 1); multiplied by rows of ``quadratic_expansion``, the weighted log-likelihoods of the Gaussians.
        self.parameters = np.hstack([self.means_inverse_variances, self.inverse_variances, self.constants[:, None]])

    def scores(self, frames: np.ndarray, pdfs: np.ndarray | None = None) -> np.ndarray:
        """Return the log-likelihoods (T, C) float32 of frames (T, D), or (T, len(pdfs)) of a subset of pdfs."""
        pdfs = np.arange(self.num_pdfs) if pdfs is None else pdfs
        counts = np.diff(self.starts)[pdfs]
        order = np.argsort(counts, kind="stable")
        first, sizes = self.starts[pdfs[order]], counts[order]
        ends = np.cumsum(sizes)
        gaussians = np.repeat(first - ends + sizes, sizes) + np.arange(sizes.sum())
        terms = self.parameters[gaussians] @ quadratic_expansion(frames).T
        # All mixtures with the same number of Gaussians are computed at once.
        same = np.flatnonzero(np.diff(sizes, prepend=0, append=0))
        groups = [
            (slice(a, b), terms[ends[a] - sizes[a] : ends[b - 1]].reshape(b - a, sizes[a], -1))
            for a, b in itertools.pairwise(same)
        ]
        maximum = np.empty((len(pdfs), len(frames)), dtype=np.float32)
        for rows, own in groups:
            own -= own.max(1, out=maximum[rows])[:, None]
        np.exp(terms, out=terms)
        for rows, own in groups:
            maximum[rows] += np.log(own.sum(1))
        out = np.empty((len(frames), len(pdfs)), dtype=np.float32)
        out[:, order] = maximum.T
        return out


def quadratic_expansion(frames: np.ndarray) -> np.ndarray:
    """(T, D) -> (T, 2D + 1) float32: x, −x²/2 and 1; Gaussian log-likelihoods are linear in them."""
    dim = frames.shape[1]
    out = np.empty((len(frames), 2 * dim + 1), np.float32)
    out[:, :dim] = frames
    np.multiply(np.square(out[:, :dim]), np.float32(-0.5), out=out[:, dim:-1])
    out[:, -1] = 1
    return out


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


class Posteriors(NamedTuple):
    """What ``gaussian_posteriors`` yields of a pdf.

    Attributes:
        rows: (n,) numbers of its frames.
        span: its M Gaussians.
        posteriors: (M, n) float32 of the Gaussians.
        log_likelihoods: (n,) of the frames.
        inputs: (n, 2D + 1) ``quadratic_expansion`` of the frames.
    """

    rows: np.ndarray
    span: slice
    posteriors: np.ndarray
    log_likelihoods: np.ndarray
    inputs: np.ndarray


def gaussian_posteriors(
    gmms: Gmms, frames: np.ndarray, labels: np.ndarray, parts: np.ndarray | None = None
) -> Iterator[Posteriors]:
    """Yield the posteriors of frames (T, D) with the pdfs ``labels`` (T,), pdf by pdf.

    Pdfs with the same number of Gaussians follow each other, since most steps are taken for all of them at once.  With
    ``parts`` (T,), ascending numbers, the last bits of the posteriors of a part do not depend on the others, as those
    of products of all frames would: a decision tree asks one of several questions that tell the data apart in the same
    way, and which one the last bits decide.
    """
    counts = np.diff(gmms.starts)
    rank = np.empty(len(counts), np.min_scalar_type(len(counts)))  # small numbers are sorted faster
    rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
    order = np.argsort(rank[labels], kind="stable")
    bounds = np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1))
    pdfs = labels[order[bounds[:-1]]]
    for first, last in itertools.pairwise(np.flatnonzero(np.diff(counts[pdfs], prepend=0, append=0))):
        group = order[bounds[first] : bounds[last]]
        inputs = quadratic_expansion(frames[group])
        posteriors = np.empty((counts[pdfs[first]], len(group)), np.float32)
        own = bounds[first : last + 1] - bounds[first]
        spans = [slice(gmms.starts[pdf], gmms.starts[pdf + 1]) for pdf in pdfs[first:last]]
        columns = [slice(a, b) for a, b in itertools.pairwise(own.tolist())]
        alone = []
        for span, rows in zip(spans, columns, strict=True):
            for piece in [rows] if parts is None else _pieces(rows, parts[group[rows]]):
                posteriors[:, piece] = gmms.parameters[span] @ inputs[piece].T
                if piece.stop - piece.start == 1:
                    alone.append(piece.start)
        maximum = posteriors.max(0)
        posteriors -= maximum
        np.exp(posteriors, out=posteriors)
        total = posteriors.sum(0)
        # NumPy adds up a single column in another order than several.
        total[alone] = np.ascontiguousarray(posteriors[:, alone].T).sum(1)
        posteriors /= total
        maximum += np.log(total)
        for span, rows in zip(spans, columns, strict=True):
            yield Posteriors(group[rows], span, posteriors[:, rows], maximum[rows], inputs[rows])


def _pieces(rows: slice, parts: np.ndarray) -> Iterator[slice]:
    """The slices of ``rows`` with the same part (n,)."""
    bounds = rows.start + np.flatnonzero(parts[1:] != parts[:-1]) + 1
    return (slice(a, b) for a, b in itertools.pairwise([rows.start, *bounds.tolist(), rows.stop]))


def accumulate(gmms: Gmms, frames: np.ndarray, labels: np.ndarray, other: np.ndarray | None = None) -> Accumulators:
    """E step: the sufficient statistics of frames (T, D) that are aligned with the pdfs ``labels`` (T,).

    With ``other`` (T, D), posteriors are those of ``frames``, and the statistics those of ``other``.
    """
    result, dim = Accumulators.zeros(gmms), gmms.dim
    for rows, span, posteriors, log_likelihoods, inputs in gaussian_posteriors(gmms, frames, labels):
        observed = inputs if other is None else quadratic_expansion(other[rows])
        result.occupation[span] = posteriors.sum(1)
        result.sums[span] = posteriors @ observed[:, :dim]
        result.squares[span] = posteriors @ observed[:, dim:-1]
        result.log_likelihood += float(log_likelihoods.sum(dtype=np.float64))
    result.squares *= -2
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
