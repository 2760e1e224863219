"""Confidences of the words that a bundle finds: fitted to one split, and judged on all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from asr_kd.bundle.measure import Form
from asr_kd.decode.calibration import calibration_error, fit_logistic, ranking
from asr_kd.runtime.confidence import NUM_MEASURES, confidences


class Judged(NamedTuple):
    """How good the confidences of a split are.

    Attributes:
        words: that were found.
        auc: chance that a right word has a higher confidence than a wrong one; None if all are right, or wrong.
        error: expected calibration error in per cent.
    """

    words: int
    auc: float | None
    error: float


def fit_confidences(form: Form, split: str) -> tuple[float, ...]:
    """The map from what is measured of a word to its confidence; empty if the split has too few words to tell."""
    values = np.array(form.measures[split]).reshape(-1, NUM_MEASURES)
    weights = fit_logistic(values, form.right[split], (0.0,) * (NUM_MEASURES + 1))
    return () if weights is None else tuple(round(float(weight), 5) for weight in weights)


def judge(form: Form, weights: tuple[float, ...]) -> dict[str, Judged]:
    """The confidences of the words of each split that has any; none without a map."""
    judged: dict[str, Judged] = {}
    for split, right in form.right.items() if weights else ():
        if right:
            values = confidences(weights, np.stack(form.measures[split]))
            auc = ranking(values, right)
            rounded = None if np.isnan(auc) else round(auc, 3)
            judged[split] = Judged(len(right), rounded, round(100 * calibration_error(values, right), 2))
    return judged
