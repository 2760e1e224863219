"""One distribution over all classes from a generalist and the specialists that have a say (section 5.4).

The paper seeks q = softmax(z) that minimises KL(p_g, q) + Σ_m KL(p_m, q), by gradient descent on z for every
example.  Two facts make that cheap and exact.  Classes that belong to the same specialists ("an atom") keep the
proportions of A_j = p_g(j) + Σ p_m(j), m over the active specialists of j, so only the atoms' masses are sought.  And
those are a fixed point of

    Q_a ← (A_a + Q_a Σ_m d_m [a outside m] / Q(outside m)) / (1 + active specialists),

d_m being the dustbin of specialist m: the EM algorithm, which needs no step size and never goes uphill.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

SUM_TOLERANCE = 1e-3  # of probabilities, which may come from bfloat16
FLOOR = 1e-12  # of a class


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
    most_steps: int = 10_000,
) -> Combined:
    """q for N examples at once.

    Args:
        general: (N, C) probabilities of the generalist.
        opinions: of the M specialists.
        have_a_say: (N, M) bool; the K true ones of a column are the examples of that opinion, in order.
        tolerance: nats that the sum of divergences may be above its minimum.
        most_steps: after so many, the rest is left as it is; ``gap`` tells how far off it may be.

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
    solved, gap, steps = _solve(atom_weights, dustbins, (~atoms).double(), tolerance, most_steps)
    return Combined(weights.mul_((solved / atom_weights).float()[:, atom_of]), gap.float(), steps)


def _solve(
    weights: Tensor, dustbins: Tensor, outside: Tensor, tolerance: float, most_steps: int
) -> tuple[Tensor, Tensor, int]:
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
    for step in range(most_steps + 1):
        w, d, q = weights[todo], dustbins[todo], masses[todo]
        pull = (d / (q @ outside.T)) @ outside
        # F is convex with gradient −G, and Σ Q G = total: F(Q) − min F ≤ max G − total (Frank and Wolfe's gap).
        g = w / q + pull
        gap[todo] = (g.amax(1) - total[todo, 0]).clamp_min(0)
        going = gap[todo] > tolerance
        if not going.any() or step == most_steps:
            return masses, gap, step
        todo = todo[going]
        masses[todo] = (w + q * pull)[going] / total[todo]
    raise AssertionError("unreachable")


def _check(whose: str, probabilities: Tensor) -> None:
    if not torch.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError(f"{whose} probabilities must be finite and not negative")
    if len(probabilities) and (probabilities.sum(1) - 1).abs().max() > SUM_TOLERANCE:
        raise ValueError(f"{whose} probabilities must sum to one")
