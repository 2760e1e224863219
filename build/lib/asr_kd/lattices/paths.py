"""Sums over all paths of lattices, with exact gradients: forward-backward recursions, level by level.

The forward pass sums in the log semiring and keeps, for each arc, its share of the paths that reach its target.  With
these shares the backward pass needs no logarithms: it hands the posterior of each state down to its arcs, which is what
reverse-mode differentiation does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from asr_kd.lattices.batch import LatticeBatch


def log_sum(scores: Tensor, lattices: LatticeBatch) -> Tensor:
    """Return the log of the sum over all paths of the exponential of their scores, (U,).

    Args:
        scores: (A,) of the arcs; the gradient is the posterior of each arc.
        lattices: U of them.
    """
    return _PathSums.apply(scores, torch.zeros_like(scores), lattices)[0]


def expected_sum(scores: Tensor, values: Tensor, lattices: LatticeBatch) -> Tensor:
    """Return the expected sum of ``values`` (A,) over the arcs of a path, (U,).

    Args:
        scores: (A,) of the arcs: the probability of a path is proportional to the exponential of its sum.  The gradient
            is that of the expectation (Povey 2004, "Discriminative training for large vocabulary speech recognition",
            chapter 6).
        values: (A,), without a gradient.
    """
    return _PathSums.apply(scores, values, lattices)[1]


def occupancies(scores: Tensor, lattices: LatticeBatch) -> Tensor:
    """Return the posterior of each arc, (A,)."""
    shares, _, _ = _forward(scores, torch.zeros_like(scores), lattices)
    return _backward(shares, torch.zeros_like(scores), lattices)[0]


class _PathSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, values: Tensor, lattices: LatticeBatch) -> tuple[Tensor, Tensor]:
        shares, alpha, means = _forward(scores, values, lattices)
        ctx.save_for_backward(shares, values, means)
        ctx.lattices = lattices
        return alpha[lattices.ends], means[lattices.ends]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_sum: Tensor, grad_mean: Tensor) -> tuple[Tensor, None, None]:
        shares, values, means = ctx.saved_tensors
        lattices: LatticeBatch = ctx.lattices
        posteriors, later = _backward(shares, values, lattices)
        # An arc's score changes the mean by its posterior times how far the paths through it are above the mean.
        above = means[lattices.source] + values - means[lattices.ends][lattices.utterance]
        return (
            grad_sum[lattices.utterance] * posteriors + grad_mean[lattices.utterance] * (posteriors * above + later),
            None,
            None,
        )


def _forward(scores: Tensor, values: Tensor, lattices: LatticeBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for the paths from the start, the share (A,) of each arc among those that reach its target; for each
    state the log of their sum (S,) and the mean (S,) of the sums of values along them."""
    states = lattices.state_bounds
    shares, alpha, means = torch.empty_like(scores), scores.new_zeros(states[-1]), scores.new_zeros(states[-1])
    with_values = bool(values.any())
    for level in range(len(states) - 2):
        arcs = slice(lattices.arc_bounds[level], lattices.arc_bounds[level + 1])
        begin, size = states[level + 1], states[level + 2] - states[level + 1]
        source, target = lattices.source[arcs], lattices.target[arcs] - begin
        here = alpha[source] + scores[arcs]
        top = here.new_full((size,), -torch.inf).scatter_reduce_(0, target, here, "amax")
        here = (here - top[target]).exp_()
        total = here.new_zeros(size).index_add_(0, target, here)
        alpha[begin : begin + size] = total.log() + top
        shares[arcs] = here.div_(total[target])
        if with_values:
            means[begin : begin + size].index_add_(0, target, here * (means[source] + values[arcs]))
    return shares, alpha, means


def _backward(shares: Tensor, values: Tensor, lattices: LatticeBatch) -> tuple[Tensor, Tensor]:
    """Return the posterior (A,) of each arc, and that times the mean of the values behind it (A,)."""
    states = lattices.state_bounds
    gamma, beyond = shares.new_zeros(states[-1]), shares.new_zeros(states[-1])
    gamma[lattices.ends] = 1.0
    posteriors, later = torch.empty_like(shares), torch.zeros_like(shares)
    with_values = bool(values.any())
    for level in reversed(range(len(states) - 2)):
        arcs = slice(lattices.arc_bounds[level], lattices.arc_bounds[level + 1])
        source, target = lattices.source[arcs], lattices.target[arcs]
        here = torch.mul(shares[arcs], gamma[target], out=posteriors[arcs])
        gamma.index_add_(0, source, here)
        if with_values:
            behind = torch.mul(shares[arcs], beyond[target], out=later[arcs])
            beyond.index_add_(0, source, behind + here * values[arcs])
    return posteriors, later
