"""Digits that a transfer set lacked, or had alone: how far to move their biases (section 3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

OFFSETS = np.round(np.arange(-15.0, 15.01, 0.1), 1)


@dataclasses.dataclass(frozen=True)
class Correction:
    """What moving some digits' biases by one offset does.

    Attributes:
        offset: added to their biases: the one with the fewest errors on training digits (of several, the middle).
        errors: of the test digits, before and after.
        own_errors: of the test digits in question, before and after.
        train_errors, test_errors: at each of ``OFFSETS``.
    """

    offset: float
    errors: tuple[int, int]
    own_errors: tuple[int, int]
    train_errors: list[int]
    test_errors: list[int]


def correct(
    digits: Sequence[int],
    train_logits: np.ndarray,
    train_labels: np.ndarray,
    test_logits: np.ndarray,
    test_labels: np.ndarray,
) -> Correction:
    """Find the offset on training digits, and count errors on test digits.

    Args:
        digits: whose biases move, all by the same offset.
        train_logits, test_logits: (N, 10).
        train_labels, test_labels: (N,); the training digits need not be in the transfer set.
    """
    train = errors_at(OFFSETS, digits, train_logits, train_labels)
    test = errors_at(OFFSETS, digits, test_logits, test_labels)
    best = np.flatnonzero(train == train.min())
    before, after = int(np.flatnonzero(OFFSETS == 0)[0]), int(best[len(best) // 2])
    own = np.isin(test_labels, digits)
    own_errors = errors_at(OFFSETS[[before, after]], digits, test_logits[own], test_labels[own])
    return Correction(
        float(OFFSETS[after]),
        (int(test[before]), int(test[after])),
        (int(own_errors[0]), int(own_errors[1])),
        train.tolist(),
        test.tolist(),
    )


def errors_at(offsets: np.ndarray, digits: Sequence[int], logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Errors with each of ``offsets`` added to the logits of ``digits``: (len(offsets),)."""
    moved = np.isin(np.arange(logits.shape[1]), digits)
    inside, outside = logits[:, moved].max(1), logits[:, ~moved].max(1)
    right_inside = np.flatnonzero(moved)[logits[:, moved].argmax(1)] == labels
    right_outside = np.flatnonzero(~moved)[logits[:, ~moved].argmax(1)] == labels
    wins = inside + offsets[:, None] > outside  # (offsets, N)
    return np.where(wins, ~right_inside, ~right_outside).sum(1)
