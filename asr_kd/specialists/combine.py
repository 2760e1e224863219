"""One distribution over all classes from a generalist and the specialists that have a say (section 5.4).

The paper seeks q = softmax(z) that minimises KL(p_g, q) + Σ_m KL(p_m, q), by gradient descent on z for every
example.  Two facts make that cheap and exact.  Classes that belong to the same specialists ("an atom") keep the
proportions of A_j = p_g(j) + Σ p_m(j), m over the active specialists of j, so only the atoms' masses are sought.  And
those are a fixed point of

    Q_a ← (A_a + Q_a Σ_m d_m [a outside m] / Q(outside m)) / (1 + active specialists),

d_m being the dustbin of specialist m: the EM algorithm, which needs no step size and never goes uphill.  It is soon
there for nearly all examples; the few that it would take thousands of steps for, as where specialists that share
classes contradict each other, are solved by an interior point method.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SUM_TOLERANCE = 1e-3  # of probabilities, which may come from bfloat16
FLOOR = 1e-12  # of a class
EM_STEPS = 50
NEWTON_STEPS = 60
NEWTON_NUMBERS = 2**22  # float64 in one matrix of the interior point method


@dataclasses.dataclass(frozen=True)
class Opinion:
    """What one specialist says of the K examples where it has a say.

    Attributes:
        classes: (n,) its special classes.
        probabilities: (K, n + 1) of these classes, and last of the dustbin: any other class.
    """

    classes: Tensor
    probabilities: Tensor


class Combined(NamedTuple):
    """The minimum.

    Attributes:
        probabilities: (N, C) float32 q.
        gap: (N,) float32 bound on how far the sum of divergences is above its minimum, nats.
        steps: of the slowest example; 0 where the closed form did for all.
    """

    probabilities: Tensor
    gap: Tensor
    steps: int


def active(general: Tensor, memberships: Tensor, likeliest: int = 1) -> Tensor:
    """Which specialists have a say: those with one of the ``likeliest`` classes of the generalist (5.4, step 1).

    Args:
        general: (N, C) the generalist's probabilities.
        memberships: (M, C) bool, see ``membership``.

    Returns:
        (N, M) bool.
    """
    top = general.topk(likeliest, dim=1).indices
    return memberships.T[top].any(1)


def membership(specialists: Sequence[Sequence[int] | Tensor], num_classes: int) -> Tensor:
    """(M, C) bool: which classes are special to which specialist.

    Raises:
        ValueError: a specialist without classes, or with one that does not exist.
    """
    members = torch.zeros(len(specialists), num_classes, dtype=torch.bool)
    for row, classes in zip(members, specialists, strict=True):
        index = torch.as_tensor(classes, dtype=torch.int64)
        if not len(index) or int(index.min()) < 0 or int(index.max()) >= num_classes:
            raise ValueError(f"a specialist's classes must be some of 0 to {num_classes - 1}, not {index.tolist()}")
        row[index] = True
    return members


def combine(
    general: Tensor,
    opinions: Sequence[Opinion],
    have_a_say: Tensor,
    tolerance: float = 1e-6,
) -> Combined:
    """q for N examples at once.

    Args:
        general: (N, C) probabilities of the generalist.
        opinions: of the M specialists.
        have_a_say: (N, M) bool; the K true ones of a column are the examples of that opinion, in order.
        tolerance: nats that the sum of divergences may be above its minimum.

    Raises:
        ValueError: shapes that do not fit, or probabilities that are negative, NaN, or do not sum to one.
    """
    _check("the generalist's", general)
    examples, num_classes = general.shape
    if have_a_say.shape != (examples, len(opinions)):
        raise ValueError(f"have_a_say is {tuple(have_a_say.shape)}, not {(examples, len(opinions))}")
    weights = general.float().clone()
    if not opinions:
        return Combined(weights, torch.zeros_like(weights[:, 0]), 0)
    members = membership([o.classes for o in opinions], num_classes).to(general.device)
    if members.all(1).any():
        raise ValueError("a specialist of all classes has nothing in its dustbin: use it as a generalist")
    dustbins = torch.zeros(examples, len(opinions), dtype=torch.float64, device=general.device)
    for number, opinion in enumerate(opinions):
        say = have_a_say[:, number]
        said, shape = opinion.probabilities.float(), (int(say.sum()), len(opinion.classes) + 1)
        if said.shape != shape:
            raise ValueError(f"opinion {number} is {tuple(said.shape)}, not {shape}")
        _check(f"specialist {number}'s", said)
        weights[say.nonzero(), opinion.classes] += said[:, :-1]
        dustbins[say, number] = said[:, -1].double()
    atoms, atom_of = torch.unique(members, dim=1, return_inverse=True)
    # An atom that nobody gives anything can still get what is in dustbins: evenly, then.
    weights += FLOOR
    atom_weights = torch.zeros(examples, atoms.shape[1], dtype=torch.float64, device=general.device)
    atom_weights.index_add_(1, atom_of, weights.double())
    solved, gap, steps = _solve(atom_weights, dustbins, (~atoms).double(), tolerance)
    return Combined(weights.mul_((solved / atom_weights).float()[:, atom_of]), gap.float(), steps)


def _solve(weights: Tensor, dustbins: Tensor, outside: Tensor, tolerance: float) -> tuple[Tensor, Tensor, int]:
    """The atoms' masses.

    Args:
        weights: (N, A) A_a.
        dustbins: (N, M) d_m, 0 where a specialist has no say.
        outside: (M, A) 1 where an atom is outside a specialist.

    Returns:
        (N, A) masses; (N,) bounds on what they miss; steps.
    """
    total = weights.sum(1, keepdim=True) + dustbins.sum(1, keepdim=True)  # 1 + active specialists
    # A dustbin's mass goes to the atoms outside in proportion to their weights: the minimum itself, when no more than
    # one specialist has a say.
    masses = weights * (1 + (dustbins / (weights @ outside.T)) @ outside) / total
    gap = torch.full_like(total[:, 0], torch.inf)
    todo = torch.arange(len(weights), device=weights.device)
    for step in range(EM_STEPS + 1):
        w, q = weights[todo], masses[todo]
        g = _pull(w, dustbins[todo], q, outside)
        gap[todo] = _gap(g, total[todo])
        going = gap[todo] > tolerance
        todo = todo[going]
        if not len(todo):
            return masses, gap, step
        masses[todo] = (q * g)[going] / total[todo]
    steps = 0
    for part in todo.split(max(1, NEWTON_NUMBERS // outside.numel())):
        masses[part], gap[part], taken = _newton(weights[part], dustbins[part], masses[part], outside, tolerance)
        steps = max(steps, taken)
    return masses, gap, EM_STEPS + steps


def _pull(weights: Tensor, dustbins: Tensor, masses: Tensor, outside: Tensor) -> Tensor:
    """−gradient of the sum of divergences by the masses."""
    return weights / masses + (dustbins / (masses @ outside.T)) @ outside


def _gap(pull: Tensor, total: Tensor) -> Tensor:
    """The sum F is convex and Σ Q G = total: F(Q) − min F ≤ max G − total (Frank and Wolfe's gap)."""
    return (pull.amax(1) - total[:, 0]).clamp_min(0)


def _newton(
    weights: Tensor, dustbins: Tensor, masses: Tensor, outside: Tensor, tolerance: float
) -> tuple[Tensor, Tensor, int]:
    """The same by a primal-dual interior point method, which takes some twenty costly steps for any example.

    At the minimum λ_m = d_m / Q(outside m), s_a = total − Σ_m λ_m [a outside m] and Q_a s_a = A_a: Newton's method on
    these, with A_a raised to a tenth of what Q_a s_a is in the mean until all are near.
    """
    total = weights.sum(1, keepdim=True) + dustbins.sum(1, keepdim=True)
    active = dustbins > 0
    matrix = outside * active[:, :, None]  # (N, M, A)

    def through(values: Tensor) -> Tensor:
        return (matrix @ values[:, :, None])[..., 0]

    def back(values: Tensor) -> Tensor:
        return (matrix.mT @ values[:, :, None])[..., 0]

    best, gap = masses, _gap(_pull(weights, dustbins, masses, outside), total)
    q, prices = masses, torch.where(active, dustbins / through(masses), 1.0)
    slack = torch.maximum(total - back(prices), weights / masses)
    for step in range(1, NEWTON_STEPS + 1):
        rest = through(q)
        product = q * slack
        target = torch.maximum(weights, (product - weights).clamp_min(0).mean(1, keepdim=True) / 10)
        missing = total - slack - back(prices)
        towards = (target - product - q * missing) / slack
        hessian = (matrix * (q / slack)[:, None]) @ matrix.mT + torch.diag_embed(
            torch.where(active, rest / prices, 1.0)
        )
        slope = torch.where(active, dustbins / prices - rest - through(towards), 0.0)
        d_prices = torch.linalg.solve_ex(hessian, slope)[0]
        d_slack = missing - back(d_prices)
        d_q = (target - product - q * d_slack) / slack
        values, changes = torch.cat([q, slack, prices], 1), torch.cat([d_q, d_slack, d_prices], 1)
        # All stay positive: 99 % of the way to the first zero at most.
        length = 0.99 * torch.where(changes < 0, -values / changes, torch.inf).amin(1, keepdim=True)
        values = values + length.clamp_max(1) * changes
        q, slack, prices = values.split([q.shape[1], q.shape[1], prices.shape[1]], 1)
        found = q / q.sum(1, keepdim=True)
        found_gap = _gap(_pull(weights, dustbins, found, outside), total)
        better = found_gap < gap  # never where a step has failed
        best, gap = torch.where(better[:, None], found, best), torch.where(better, found_gap, gap)
        if (gap <= tolerance).all():
            return best, gap, step
    return best, gap, NEWTON_STEPS


def _check(whose: str, probabilities: Tensor) -> None:
    if not torch.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError(f"{whose} probabilities must be finite and not negative")
    if len(probabilities) and (probabilities.sum(1) - 1).abs().max() > SUM_TOLERANCE:
        raise ValueError(f"{whose} probabilities must sum to one")
