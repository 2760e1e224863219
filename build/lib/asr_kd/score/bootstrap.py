"""Bootstrap confidence intervals and paired comparisons (Bisani and Ney, ICASSP 2004).

Utterances or speakers are drawn with replacement; intervals are percentiles of the draws, and two systems are compared
on the same draws.
"""

from dataclasses import dataclass

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.score.config import Unit
from asr_kd.score.wer import Scores

#: Random numbers held in memory at once.
_MAX_NUMBERS = 4_000_000


@dataclass(frozen=True)
class Bootstrap:
    """Settings of the bootstrap.

    Attributes:
        by: unit that is drawn with replacement.
        replications: number of draws.
        seed: seed of the draws; all systems share it, so that comparisons are paired.
    """

    by: Unit = "utterance"
    replications: int = 10_000
    seed: int = 0

    def rates(self, *systems: Scores) -> np.ndarray:
        """(R, S) WER of S systems in each of R draws.

        Draws without a word are left out, so R may be smaller than ``replications`` on tiny sets.
        """
        first = systems[0]
        assert all(system.ids == first.ids for system in systems)
        table = np.stack([column for s in systems for column in (s.errors, s.counts[:, 3])], axis=1)
        if self.by == "speaker":
            _, group = np.unique(first.speakers, return_inverse=True)
            table = np.stack([np.bincount(group, column) for column in table.T], axis=1)
        sums = self._sums(table.astype(np.float64))
        sums = sums[(sums[:, 1::2] > 0).all(1)]
        return 100 * sums[:, 0::2] / sums[:, 1::2]

    def _sums(self, table: np.ndarray) -> np.ndarray:
        """(R, K) sums over the rows drawn from ``table`` (N, K)."""
        random = np.random.default_rng(self.seed)
        rows = len(table)
        sums = np.empty((self.replications, table.shape[1]))
        step = max(1, _MAX_NUMBERS // rows)
        for start in range(0, self.replications, step):
            size = min(step, self.replications - start)
            drawn = random.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
            times = np.bincount(drawn.ravel(), minlength=size * rows).reshape(size, rows)
            sums[start : start + size] = times @ table
        return sums


def interval(scores: Scores, bootstrap: Bootstrap) -> tuple[float, float]:
    """95 % interval of the WER of a system."""
    low, high = np.percentile(bootstrap.rates(scores), [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same utterances.

    Attributes:
        difference: WER of the second minus WER of the first; negative where the second is better.
        low, high: 95 % interval of the difference.
        improvement: share of the draws in which the second has fewer errors.
        p: two-sided p-value of no difference: twice the smaller share of draws on either side of zero.
    """

    difference: float
    low: float
    high: float
    improvement: float
    p: float


def compare(first: Scores, second: Scores, bootstrap: Bootstrap) -> Comparison:
    """Paired comparison of ``second`` with ``first``.

    Raises:
        UserError: they were not scored on the same utterances.
    """
    if first.ids != second.ids:
        raise UserError("the two systems were scored on different utterances: score both against the same cuts")
    rates = bootstrap.rates(first, second)
    differences = rates[:, 1] - rates[:, 0]
    low, high = np.percentile(differences, [2.5, 97.5])
    tail = min((differences <= 0).sum(), (differences >= 0).sum())
    return Comparison(
        difference=second.wer - first.wer,
        low=float(low),
        high=float(high),
        improvement=float((differences < 0).mean()),
        p=min(1.0, 2 * (float(tail) + 1) / (len(differences) + 1)),
    )
