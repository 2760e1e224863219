"""How sure a recognised word is: how well the senones of its frames do against all others, since there is no lattice.

A logistic map, which ``asr_kd.bundle`` fits to the words of dev, makes a probability of what is measured of a word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

#: Values of a word, as ``measures`` says; the map has a weight for each, and an offset.
NUM_MEASURES = 3


def log_totals(scores: np.ndarray, scale: float) -> np.ndarray:
    """What the scores (n, C) of frames come to, (n,): log Σ exp(score / ``scale``)."""
    best = scores.max(1)
    totals: np.ndarray = best / scale + np.log(np.exp((scores - best[:, None]) / np.float32(scale)).sum(1))
    return totals


def measures(logs: np.ndarray, pdfs: np.ndarray) -> np.ndarray:
    """What is measured of a word, (3,): each value rises with the chance that it is right.

    These are the mean probability of its senones; −√(−mean log-probability) of the worst of them in its frames, since
    one wrong sound makes a wrong word; and the log of the number of frames, since short words are easily confused.

    Args:
        logs: (n,) log-probabilities of the senones of its frames.
        pdfs: (n,) these senones.
    """
    starts = np.flatnonzero(np.diff(pdfs, prepend=-1))
    means = np.add.reduceat(logs, starts) / np.diff(starts, append=len(pdfs))
    return np.array([np.exp(logs).mean(), -np.sqrt(max(-means.min(), 0.0)), np.log(len(pdfs))])


def confidence(weights: Sequence[float], values: np.ndarray) -> float:
    """The probability that a word is right, given the map and the ``measures`` of the word."""
    return float(1 / (1 + np.exp(-(values @ weights[:-1] + weights[-1]))))
