"""Confidences that are probabilities: a logistic map of lattice posteriors, fitted to which words of dev are right.

A lattice keeps few of the wrong paths, and frames are not independent, as its scores assume; so its posteriors say more
than is so (Evermann and Woodland 2000, "Large vocabulary decoding and confidence estimation using word posterior
probabilities").  The map has two parameters, as that of Platt (1999).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import kaldialign
import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json

#: Posteriors are moved this far from 0 and 1, which have no logit.
MARGIN = 1e-3
#: Bins of the calibration error.
BINS = 10
#: Fewer words than this, or fewer right or wrong ones than ``MIN_CLASS``, cannot be fitted.
MIN_WORDS, MIN_CLASS = 50, 5
#: Strength of the prior (a Gaussian, around slope 1 and offset 0 for posteriors), which keeps separable words finite.
PRIOR = 0.1


@dataclasses.dataclass(frozen=True)
class Calibration:
    """confidence = logistic(slope · logit(posterior) + offset); the slope is above 0, so the order of words stays."""

    slope: float = 1.0
    offset: float = 0.0

    def __call__(self, posteriors: Sequence[float]) -> list[float]:
        if self == Calibration():
            return list(posteriors)
        scores: np.ndarray = 1 / (1 + np.exp(-(self.slope * logits(posteriors) + self.offset)))
        return scores.tolist()


def logits(posteriors: Sequence[float]) -> np.ndarray:
    values = np.clip(np.array(posteriors, dtype=float), MARGIN, 1 - MARGIN)
    return np.log(values / (1 - values))


def fit(posteriors: Sequence[float], right: Sequence[bool]) -> Calibration:
    """The map with the highest likelihood; the identity if there are too few words to tell."""
    weights = fit_logistic(logits(posteriors)[:, None], right, (1.0, 0.0))
    if weights is None:
        return Calibration()
    slope, offset = (round(float(weight), 5) for weight in weights)
    return Calibration(slope, offset) if slope > 0 else Calibration()


def fit_logistic(values: np.ndarray, right: Sequence[bool], start: Sequence[float]) -> np.ndarray | None:
    """The logistic map with the highest likelihood (Newton's method): a weight for each value, and an offset.

    Args:
        values: (N, D) of words.
        right: which of them are right.
        start: (D + 1,) mean of the prior.

    Returns:
        (D + 1,), or None if there are too few words to tell.
    """
    if len(right) < MIN_WORDS or not MIN_CLASS <= sum(right) <= len(right) - MIN_CLASS:
        return None
    inputs = np.column_stack([values, np.ones(len(right))])
    weights = np.array(start, float)
    for _ in range(50):
        predicted = 1 / (1 + np.exp(-inputs @ weights))
        gradient = inputs.T @ (np.array(right) - predicted) - PRIOR * (weights - start)
        curvature = (inputs.T * (predicted * (1 - predicted))) @ inputs + PRIOR * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        weights += step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-8:
            break
    return weights


def calibration_error(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """The expected calibration error: the mean distance of confidence and share of right words, over ten bins.

    Each bin counts by its words (Naeini, Cooper, Hauskrecht 2015).
    """
    values, hits = np.array(confidences, dtype=float), np.array(right, dtype=float)
    bins = np.minimum((values * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, hits - values, minlength=BINS)
    return float(np.abs(gaps).sum() / max(len(values), 1))


def ranking(confidences: Sequence[float], right: Sequence[bool]) -> float:
    """The chance that a right word has a higher confidence than a wrong one (AUC); NaN if there are none of either."""
    values, hits = np.array(confidences, dtype=float), np.array(right, dtype=bool)
    wrong = np.sort(values[~hits])
    below = sum(np.searchsorted(wrong, values[hits], side) for side in ("left", "right")) / 2
    return float(below.sum() / (hits.sum() * len(wrong))) if hits.any() and len(wrong) else math.nan


def right_words(reference: Sequence[str], hypothesis: Sequence[str]) -> list[bool]:
    """Whether each word of a hypothesis is right, in an alignment with the fewest errors."""
    pairs = kaldialign.align(list(reference), list(hypothesis), "")
    return [spoken == heard for spoken, heard in pairs if heard]


def read_calibration(path: Path | None) -> Calibration:
    """The map in a tuned.json; the identity if it has none.

    Raises:
        UserError: it is damaged.
    """
    values = read_json(path).get("confidence") if path else None
    if values is None:
        return Calibration()
    try:
        slope, offset = float(values["slope"]), float(values["offset"])
        if not (0 < slope < math.inf and math.isfinite(offset)):
            raise ValueError
        return Calibration(slope, offset)
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{path} has a damaged calibration of confidences: tune again (--tune-on and --times), or delete the key "
            "confidence"
        ) from None
