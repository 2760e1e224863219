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


def measures(logs: np.ndarray, pdfs: np.ndarray, words: Sequence[np.ndarray]) -> np.ndarray:
    """What is measured of words, (W, 3): each value rises with the chance that a word is right.

    These are the mean probability of its senones; −√(−mean log-probability) of the worst of them in its frames, since
    one wrong sound makes a wrong word; and the log of the number of frames, since short words are easily confused.

    Args:
        logs: (T,) log-probabilities of the senones of the frames.
        pdfs: (T,) these senones.
        words: the frames of each word, of which it has one at least.
    """
    frames, lengths = np.concatenate(words), np.array([len(own) for own in words])
    starts = lengths.cumsum() - lengths
    own, senones = logs[frames], pdfs[frames]
    changes = senones != np.roll(senones, 1)
    changes[starts] = True
    runs = np.flatnonzero(changes)  # frames of one senone
    means = np.add.reduceat(own, runs) / np.diff(runs, append=len(frames))
    worst = np.minimum.reduceat(means, np.searchsorted(runs, starts))
    likely = np.add.reduceat(np.exp(own), starts) / lengths
    return np.column_stack([likely, -np.sqrt(np.maximum(-worst, 0.0)), np.log(lengths)])


def confidences(weights: Sequence[float], values: np.ndarray) -> list[float]:
    """The probability that each word is right, given the map and the ``measures`` (W, 3) of the words."""
    odds: list[float] = (1 / (1 + np.exp(-(values @ weights[:-1] + weights[-1])))).tolist()
    return odds
