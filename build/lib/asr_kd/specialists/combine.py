"""One distribution over all classes from the posteriors of a generalist and its active specialists (section 5.4).

The paper finds q = softmax(z) that minimises KL(p_g, q) + Σ_m KL(p_m, q) by gradient descent on z for every example.
Two facts allow an exact and cheap solution.  Classes that belong to the same specialists (an "atom") keep the
proportions of A_j = p_g(j) + Σ p_m(j), where m runs over the active specialists that cover j, so only the masses of the
atoms are unknown.  These are a fixed point of

    Q_a ← (A_a + Q_a Σ_m d_m [a outside m] / Q(outside m)) / (1 + active specialists),

where d_m is the dustbin of specialist m.  This is the EM algorithm: it needs no step size and never increases the
objective.  It converges quickly for nearly all examples.  The few that would need thousands of steps, for example where
specialists that share classes contradict each other, are solved by an interior point method.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SUM_TOLERANCE = 1e-3  # of probabilities, which may be computed in bfloat16
MIN_PROBABILITY = 1e-12
EM_STEPS = 50
NEWTON_STEPS = 60
MAX_MATRIX = 2**22  # float64 values in one matrix of the interior point method


@dataclasses.dataclass(frozen=True)
class SpecialistPosteriors:
    """Posteriors of one specialist for the K examples where it is active.

    Attributes:
        classes: (n,) its special classes.
        probabilities: (K, n + 1) of these classes, and last of the dustbin, which stands for all other classes.
    """

    classes: Tensor
    probabilities: Tensor


class Combined(NamedTuple):
    """The minimum.

    Attributes:
        probabilities: (N, C) float32 q.
        gap: (N,) float32 upper bound on the distance of the sum of divergences from its minimum, nats.
        steps: of the slowest example; 0 if the closed form was exact for all.
    """

    probabilities: Tensor
    gap: Tensor
    steps: int


def active_specialists(generalist: Tensor, members: Tensor, top_k: int = 1) -> Tensor:
    """Return which specialists are active: those that cover one of the generalist's top-k classes (5.4, step 1).

    Args:
        generalist: (N, C) posteriors.
        members: (M, C) bool, see ``membership``.

    Returns:
        (N, M) bool.
    """
    top = generalist.topk(min(top_k, generalist.shape[1]), dim=1).indices
    return members.T[top].any(1)


def membership(specialists: Sequence[Sequence[int] | Tensor], num_classes: int) -> Tensor:
    """Return which classes each specialist covers, (M, C) bool.

    Raises:
        ValueError: a specialist has no classes, or one that does not exist.
    """
    members = torch.zeros(len(specialists), num_classes, dtype=torch.bool)
    for row, classes in zip(members, specialists, strict=True):
        index = torch.as_tensor(classes, dtype=torch.int64)
        if not len(index) or int(index.min()) < 0 or int(index.max()) >= num_classes:
            raise ValueError(f"a specialist's classes must be between 0 and {num_classes - 1}, not {index.tolist()}")
        row[index] = True
    return members


def combine(
    generalist: Tensor, specialists: Sequence[SpecialistPosteriors], active: Tensor, tolerance: float = 1e-6
) -> Combined:
    """Return q for N examples.

    Args:
        generalist: (N, C) posteriors.
        specialists: posteriors of the M specialists.
        active: (N, M) bool; the K true values of column m are the examples of specialist m, in order.
        tolerance: largest distance of the sum of divergences from its minimum, nats.

    Raises:
        ValueError: shapes do not fit, or probabilities are negative, NaN, or do not sum to one.
    """
    _check("the generalist's", generalist)
    examples, num_classes = generalist.shape
    if active.shape != (examples, len(specialists)):
        raise ValueError(f"active has shape {tuple(active.shape)}, not {(examples, len(specialists))}")
    weights = generalist.float().clone()
    if not specialists:
        return Combined(weights, torch.zeros_like(weights[:, 0]), 0)
    members = membership([s.classes for s in specialists], num_classes).to(generalist.device)
    if members.all(1).any():
        raise ValueError("a specialist that covers all classes has an empty dustbin: use it as a generalist")
    dustbins = torch.zeros(examples, len(specialists), dtype=torch.float64, device=generalist.device)
    for number, specialist in enumerate(specialists):
        rows = active[:, number]
        posteriors, shape = specialist.probabilities.float(), (int(rows.sum()), len(specialist.classes) + 1)
        if posteriors.shape != shape:
            raise ValueError(f"posteriors of specialist {number} have shape {tuple(posteriors.shape)}, not {shape}")
        _check(f"specialist {number}'s", posteriors)
        weights[rows.nonzero(), specialist.classes] += posteriors[:, :-1]
        dustbins[rows, number] = posteriors[:, -1].double()
    atoms, atom_of = torch.unique(members, dim=1, return_inverse=True)
    # An atom to which all posteriors give zero may still receive mass from dustbins, spread evenly over its classes.
    weights += MIN_PROBABILITY
    atom_weights = torch.zeros(examples, atoms.shape[1], dtype=torch.float64, device=generalist.device)
    atom_weights.index_add_(1, atom_of, weights.double())
    masses, gap, steps = _solve(atom_weights, dustbins, (~atoms).double(), tolerance)
    return Combined(weights.mul_((masses / atom_weights).float()[:, atom_of]), gap.float(), steps)


def _solve(weights: Tensor, dustbins: Tensor, outside: Tensor, tolerance: float) -> tuple[Tensor, Tensor, int]:
    """Solve for the masses of the atoms.

    Args:
        weights: (N, A) A_a.
        dustbins: (N, M) d_m, 0 where a specialist is not active.
        outside: (M, A) 1 where an atom is outside a specialist.

    Returns:
        (N, A) masses; (N,) bounds on their distance from the optimum; steps.
    """
    total = weights.sum(1, keepdim=True) + dustbins.sum(1, keepdim=True)  # 1 + active specialists
    # A dustbin's mass goes to the atoms outside in proportion to their weights.  With at most one active specialist,
    # this is the minimum itself.
    masses = weights * (1 + (dustbins / (weights @ outside.T)) @ outside) / total
    gap = torch.full_like(total[:, 0], torch.inf)
    todo = torch.arange(len(weights), device=weights.device)
    for step in range(EM_STEPS + 1):
        w, q = weights[todo], masses[todo]
        g = _negative_gradient(w, dustbins[todo], q, outside)
        gap[todo] = _gap(g, total[todo])
        unsolved = gap[todo] > tolerance
        todo = todo[unsolved]
        if not len(todo):
            return masses, gap, step
        masses[todo] = (q * g)[unsolved] / total[todo]
    steps = 0
    for rows in todo.split(max(1, MAX_MATRIX // outside.numel())):
        masses[rows], gap[rows], taken = _newton(weights[rows], dustbins[rows], masses[rows], outside, tolerance)
        steps = max(steps, taken)
    return masses, gap, EM_STEPS + steps


def _negative_gradient(weights: Tensor, dustbins: Tensor, masses: Tensor, outside: Tensor) -> Tensor:
    """Return the negative gradient of the sum of divergences with respect to the masses."""
    return weights / masses + (dustbins / (masses @ outside.T)) @ outside


def _gap(negative_gradient: Tensor, total: Tensor) -> Tensor:
    """Return the Frank-Wolfe gap: the sum F is convex and Σ Q G = total, so F(Q) − min F ≤ max G − total."""
    return (negative_gradient.amax(1) - total[:, 0]).clamp_min(0)


def _newton(
    weights: Tensor, dustbins: Tensor, masses: Tensor, outside: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, int]:
    """Solve by a primal-dual interior point method, which takes about twenty expensive steps for any example.

    At the minimum λ_m = d_m / Q(outside m), s_a = total − Σ_m λ_m [a outside m] and Q_a s_a = A_a.  Newton's method is
    applied to these equations, with A_a raised to a tenth of the mean of Q_a s_a until all of them nearly hold.
    """
    total = weights.sum(1, keepdim=True) + dustbins.sum(1, keepdim=True)
    active = dustbins > 0
    matrix = outside * active[:, :, None]  # (N, M, A)

    def times(values: Tensor) -> Tensor:
        return (matrix @ values[:, :, None])[..., 0]

    def transposed_times(values: Tensor) -> Tensor:
        return (matrix.mT @ values[:, :, None])[..., 0]

    best, gap = masses, _gap(_negative_gradient(weights, dustbins, masses, outside), total)
    q, multipliers = masses, torch.where(active, dustbins / times(masses), 1.0)
    slack = torch.maximum(total - transposed_times(multipliers), weights / masses)
    for step in range(1, NEWTON_STEPS + 1):
        outside_masses = times(q)
        product = q * slack
        target = torch.maximum(weights, (product - weights).clamp_min(0).mean(1, keepdim=True) / 10)
        residual = total - slack - transposed_times(multipliers)
        direction = (target - product - q * residual) / slack
        hessian = (matrix * (q / slack)[:, None]) @ matrix.mT + torch.diag_embed(
            torch.where(active, outside_masses / multipliers, 1.0)
        )
        right_side = torch.where(active, dustbins / multipliers - outside_masses - times(direction), 0.0)
        d_multipliers = torch.linalg.solve_ex(hessian, right_side)[0]
        d_slack = residual - transposed_times(d_multipliers)
        d_q = (target - product - q * d_slack) / slack
        values, changes = torch.cat([q, slack, multipliers], 1), torch.cat([d_q, d_slack, d_multipliers], 1)
        # All values stay positive: at most 99 % of the way to the first zero.
        length = 0.99 * torch.where(changes < 0, -values / changes, torch.inf).amin(1, keepdim=True)
        values = values + length.clamp_max(1) * changes
        q, slack, multipliers = values.split([q.shape[1], q.shape[1], multipliers.shape[1]], 1)
        normalised = q / q.sum(1, keepdim=True)
        new_gap = _gap(_negative_gradient(weights, dustbins, normalised, outside), total)
        improved = new_gap < gap  # false where a step has failed
        best, gap = torch.where(improved[:, None], normalised, best), torch.where(improved, new_gap, gap)
        if (gap <= tolerance).all():
            return best, gap, step
    return best, gap, NEWTON_STEPS


def _check(owner: str, probabilities: Tensor) -> None:
    if not torch.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError(f"{owner} probabilities must be finite and not negative")
    if len(probabilities) and (probabilities.sum(1) - 1).abs().max() > SUM_TOLERANCE:
        raise ValueError(f"{owner} probabilities must sum to one")
