"""Bias correction for digits that were missing from the transfer set, or alone in it (section 3)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

OFFSETS = np.round(np.arange(-15.0, 15.01, 0.1), 1)


@dataclasses.dataclass(frozen=True)
class Correction:
    """The effect of adding one offset to the biases of some digits.

    Attributes:
        offset: the offset with the fewest errors on training images (of several, the middle one).
        errors: on all test images, before and after.
        own_errors: on the test images of the corrected digits, before and after.
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
    """Choose the offset on training images, and count the errors on test images.

    Args:
        digits: their biases are changed, all by the same offset.
        train_logits, test_logits: (N, 10).
        train_labels, test_labels: (N,); the training images need not be in the transfer set.
    """
    train = errors_at(OFFSETS, digits, train_logits, train_labels)
    test = errors_at(OFFSETS, digits, test_logits, test_labels)
    minima = np.flatnonzero(train == train.min())
    before, after = int(np.flatnonzero(OFFSETS == 0)[0]), int(minima[len(minima) // 2])
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
    """Return the number of errors with each of ``offsets`` added to the logits of ``digits``, (len(offsets),)."""
    corrected = np.isin(np.arange(logits.shape[1]), digits)
    inside, outside = logits[:, corrected], logits[:, ~corrected]
    inside_right = np.flatnonzero(corrected)[inside.argmax(1)] == labels
    outside_right = np.flatnonzero(~corrected)[outside.argmax(1)] == labels
    inside_wins = inside.max(1) + offsets[:, None] > outside.max(1)  # (offsets, N)
    return np.where(inside_wins, ~inside_right, ~outside_right).sum(1)
