"""Back-off n-gram models on NumPy arrays: counts, modified Kneser-Ney, mixtures, entropy pruning.

Words are ids 0 … V−1, then ``</s>`` = V and ``<s>`` = V+1.  An n-gram is one int64, the number whose digits
to the base V+2 are its words, so that sorting, its history (key // base) and its suffix (key % base**(n−1))
are plain arithmetic.  Words outside the vocabulary are −1: they end a history and are never predicted.
Logarithms are natural.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

CHUNK = 4_000_000  # tokens counted at a time: bounds memory on text of any length
#: Discounts for counts 1, 2, 3+ where a corpus is too small to estimate its own.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
LOG_ZERO = -np.inf


@dataclass(frozen=True)
class Counts:
    """Raw n-gram counts of one corpus.

    Attributes:
        base: V + 2.
        keys: for n = 1, 2, …: sorted int64; for n = 1 every id, seen or not.
        counts: int64 beside ``keys``; that of ``<s>`` is the number of sentences.
    """

    base: int
    keys: list[np.ndarray]
    counts: list[np.ndarray]

    @property
    def order(self) -> int:
        return len(self.keys)

    @property
    def words(self) -> int:
        """Known words, each time they come."""
        return int(self.counts[0][:-2].sum())

    @property
    def tokens(self) -> int:
        """Known words and sentence ends."""
        return int(self.counts[0][:-1].sum())


def count(sentences: Iterable[Sequence[int]], vocabulary: int, order: int) -> Counts:
    """Count the n-grams of all orders up to ``order``, or up to the longest that occurs.

    Args:
        sentences: word ids in [0, vocabulary), or −1.

    Raises:
        ValueError: n-grams of this order do not fit 64 bits.
    """
    base = vocabulary + 2
    if order < 1 or order * np.log2(base) >= 63:
        raise ValueError(f"order {order} does not go with a vocabulary of {vocabulary}")
    keys = [np.arange(base)] + [np.zeros(0, np.int64)] * (order - 1)
    counts = [np.zeros(len(k), np.int64) for k in keys]
    for tokens in _chunks(sentences, base):
        for n, (window, valid) in enumerate(_windows(tokens, base, order)):
            new, new_counts = np.unique(window[valid], return_counts=True)
            keys[n], counts[n] = _merge([keys[n], new], [counts[n], new_counts])
    found = max(n for n, some in enumerate(keys, 1) if len(some))
    return Counts(base, keys[:found], counts[:found])


def _chunks(sentences: Iterable[Sequence[int]], base: int) -> Iterator[np.ndarray]:
    """Whole sentences between <s> and </s>, as arrays of about ``CHUNK`` ids."""
    tokens: list[int] = []
    for sentence in sentences:
        tokens.append(base - 1)
        tokens.extend(sentence)
        tokens.append(base - 2)
        if len(tokens) >= CHUNK:
            yield np.array(tokens, np.int64)
            tokens = []
    if tokens:
        yield np.array(tokens, np.int64)


def _windows(tokens: np.ndarray, base: int, order: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For n = 1 … order: the n-gram that ends at each token, and whether there is one."""
    known = tokens >= 0
    inside = known & (tokens != base - 1)
    window, valid = tokens, known
    yield window, valid
    for _ in range(1, order):
        shifted = np.concatenate([[0], window[:-1]])
        valid = np.concatenate([[False], valid[:-1]]) & inside
        window = shifted * base + tokens
        yield window, valid


def _merge(keys: Sequence[np.ndarray], counts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    union, where = np.unique(np.concatenate(keys), return_inverse=True)
    return union, np.bincount(where, np.concatenate(counts), len(union)).astype(np.int64)


def _find(sorted_keys: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of ``keys`` in ``sorted_keys`` (valid where found), and whether they are there."""
    at = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return at, sorted_keys[at] == keys


@dataclass
class BackoffModel:
    """P(w | h) = exp(log_prob) for listed n-grams, else exp(backoff(h)) · P(w | h without its first word).

    Attributes:
        base: V + 2.
        keys: for n = 1, 2, …: sorted int64 n-grams; for n = 1 every id.
        log_probs: float64 beside ``keys``; −inf for ``<s>``.
        backoffs: float64 beside ``keys``, of the n-gram as a history.
    """

    base: int
    keys: list[np.ndarray]
    log_probs: list[np.ndarray]
    backoffs: list[np.ndarray]

    @property
    def order(self) -> int:
        return len(self.keys)

    @property
    def sizes(self) -> list[int]:
        return [len(keys) for keys in self.keys]

    def log_prob(self, n: int, keys: np.ndarray) -> np.ndarray:
        """Log probability of the last word of each n-gram given the others: (K,) int64 to (K,) float64."""
        if n > self.order:
            return self.log_prob(self.order, keys % self.base**self.order)
        at, found = _find(self.keys[n - 1], keys)
        out = self.log_probs[n - 1][at]
        if not found.all():
            rest = keys[~found]
            shorter = self.log_prob(n - 1, rest % self.base ** (n - 1))
            at, known = _find(self.keys[n - 2], rest // self.base)
            out[~found] = shorter + np.where(known, self.backoffs[n - 2][at], 0.0)
        return out

    def renormalise(self) -> None:
        """Set every back-off weight so that the probabilities after each history sum to one."""
        for n in range(2, self.order + 1):
            lower = self.log_prob(n - 1, self.keys[n - 1] % self.base ** (n - 1))
            seen, where, mass, below = self.masses(n, lower)
            # A history that lists every word has nothing to back off to: its own probabilities must do.
            full = below > 1 - 1e-9
            self.log_probs[n - 1] = self.log_probs[n - 1] - np.where(full, np.log(mass), 0.0)[where]
            self.backoffs[n - 2] = np.zeros(len(self.keys[n - 2]))
            self.backoffs[n - 2][seen] = np.where(full, 0.0, np.log(_rest(mass) / _rest(below)))

    def masses(self, n: int, lower: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Sums over what each history of order n lists.

        Args:
            lower: log probability of each n-gram's last word after the shorter history, (K,).

        Returns:
            the H histories as positions among the n−1-grams; each n-gram's history, (K,) in [0, H); the
            probability of its words after it, and after the shorter history, (H,).
        """
        histories, where = np.unique(self.keys[n - 1] // self.base, return_inverse=True)
        at, _ = _find(self.keys[n - 2], histories)
        listed, below = (np.bincount(where, np.exp(p), len(histories)) for p in (self.log_probs[n - 1], lower))
        return at, where, listed, below


def _rest(mass: np.ndarray) -> np.ndarray:
    # A history followed by nearly all words: rounding must not make the rest negative.
    return np.maximum(1.0 - mass, 1e-12)


def kneser_ney(counts: Counts) -> BackoffModel:
    """Interpolated modified Kneser-Ney (Chen and Goodman 1999), down to a uniform distribution.

    Raises:
        ValueError: nothing was counted.
    """
    if not counts.tokens:
        raise ValueError("no words to estimate a language model from")
    base = counts.base
    model = BackoffModel(base, [], [], [])
    for n in range(1, counts.order + 1):
        keys, adjusted = counts.keys[n - 1], _adjusted(counts, n)
        histories, where = np.unique(keys // base if n > 1 else np.zeros(base, np.int64), return_inverse=True)
        discount = np.concatenate([[0.0], _discounts(adjusted)])[np.minimum(adjusted, 3)]
        total = np.bincount(where, adjusted, len(histories))
        left = np.bincount(where, discount, len(histories)) / total
        lower = np.full(base, 1.0 / (base - 1)) if n == 1 else np.exp(model.log_prob(n - 1, keys % base ** (n - 1)))
        probs = (adjusted - discount) / total[where] + left[where] * lower
        if n == 1:
            probs[base - 1] = 0.0
        else:
            at, _ = _find(model.keys[-1], histories)
            model.backoffs[-1][at] = np.log(np.maximum(left, 1e-12))
        with np.errstate(divide="ignore"):
            model.log_probs.append(np.log(probs))
        model.keys.append(keys)
        model.backoffs.append(np.zeros(len(keys)))
    return model


def _adjusted(counts: Counts, n: int) -> np.ndarray:
    """Counts of order n; below the highest, the number of distinct words seen before the n-gram instead
    (its raw count if it begins a sentence: nothing comes before it)."""
    keys, raw = counts.keys[n - 1], counts.counts[n - 1]
    bos = counts.base - 1
    if n == counts.order:
        adjusted = raw.copy()
    else:
        suffixes, extensions = np.unique(counts.keys[n] % counts.base**n, return_counts=True)
        adjusted = np.minimum(raw, 1)  # what only followed unknown words has no extension
        adjusted[_find(keys, suffixes)[0]] = extensions
        adjusted = np.where(keys // counts.base ** (n - 1) == bos, raw, adjusted)
    if n == 1:
        adjusted[bos] = 0
    return adjusted


def _discounts(adjusted: np.ndarray) -> np.ndarray:
    ones, twos, threes, fours = (int((adjusted == k).sum()) for k in (1, 2, 3, 4))
    if not (ones and twos and threes and fours):
        return np.array(FALLBACK_DISCOUNTS)
    y = ones / (ones + 2 * twos)
    raw = (1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes)
    return np.array([d if 0 < d < k else f for k, (d, f) in enumerate(zip(raw, FALLBACK_DISCOUNTS, strict=True), 1)])


def score(model: BackoffModel, sentences: Iterable[Sequence[int]]) -> np.ndarray:
    """Log probability of every known word and sentence end, each given as long a history as the model uses."""
    parts = []
    for tokens in _chunks(sentences, model.base):
        out = np.zeros(len(tokens))
        for n, (window, valid) in enumerate(_windows(tokens, model.base, model.order), 1):
            out[valid] = model.log_prob(n, window[valid])
        parts.append(out[(tokens >= 0) & (tokens != model.base - 1)])
    return np.concatenate(parts) if parts else np.zeros(0)


def perplexity(log_probs: np.ndarray) -> float:
    """Of words and sentence ends, unknown words left out; NaN of nothing."""
    return float(np.exp(-log_probs.mean())) if len(log_probs) else float("nan")


def mixture_weights(models: Sequence[BackoffModel], sentences: Sequence[Sequence[int]]) -> np.ndarray:
    """Weights of a linear mixture that make ``sentences`` likeliest (EM): (len(models),), sum 1."""
    probs = np.exp([score(model, sentences) for model in models])
    weights = np.full(len(models), 1.0 / len(models))
    for _ in range(200 if probs.size else 0):
        shares = weights[:, None] * probs
        updated = (shares / shares.sum(0)).mean(1)
        converged = np.abs(updated - weights).max() < 1e-5
        weights = updated
        if converged:
            break
    return weights


def mix(models: Sequence[BackoffModel], weights: Sequence[float] | np.ndarray) -> BackoffModel:
    """One back-off model of a linear mixture: exact for every n-gram that any of the models lists."""
    order, base = max(model.order for model in models), models[0].base
    keys = [np.unique(np.concatenate([model.keys[n] for model in models if n < model.order])) for n in range(order)]
    log_probs = []
    for n in range(1, order + 1):
        with np.errstate(divide="ignore"):
            log_probs.append(
                np.log(sum(w * np.exp(m.log_prob(n, keys[n - 1])) for m, w in zip(models, weights, strict=True)))
            )
    mixed = BackoffModel(base, keys, log_probs, [np.zeros(len(k)) for k in keys])
    mixed.renormalise()
    return mixed


def frequencies(
    corpora: Sequence[Counts], weights: Sequence[float] | np.ndarray, n: int, keys: np.ndarray
) -> np.ndarray:
    """How often each n-gram occurs: relative frequencies mixed with ``weights``, (K,)."""
    total = np.zeros(len(keys))
    for counts, weight in zip(corpora, weights, strict=True):
        if n > counts.order:
            continue
        at, found = _find(counts.keys[n - 1], keys)
        total += weight * np.where(found, counts.counts[n - 1][at], 0) / counts.tokens
    return total


def prune(
    model: BackoffModel, corpora: Sequence[Counts], weights: Sequence[float] | np.ndarray, threshold: float
) -> BackoffModel:
    """Leave out n-grams whose removal raises the model's perplexity by less than ``threshold`` (relative).

    Stolcke 1998, with the histories' frequencies in ``corpora`` instead of the model's own probability of
    them, which Kneser-Ney's lower orders misjudge (Chelba et al. 2010).
    """
    keys, log_probs = list(model.keys), list(model.log_probs)
    needed = np.zeros(0, np.int64)
    for n in range(model.order, 1, -1):
        loss = pruning_loss(model, n, corpora, weights)
        keep = (np.expm1(loss) >= threshold) | np.isin(keys[n - 1], needed)
        keys[n - 1], log_probs[n - 1] = keys[n - 1][keep], log_probs[n - 1][keep]
        needed = np.unique(keys[n - 1] // model.base)
    left = max(n for n, some in enumerate(keys, 1) if len(some))
    pruned = BackoffModel(model.base, keys[:left], log_probs[:left], [np.zeros(len(k)) for k in keys[:left]])
    pruned.renormalise()
    return pruned


def pruning_loss(
    model: BackoffModel, n: int, corpora: Sequence[Counts], weights: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Relative entropy between the model and the model without each n-gram of order n, (K,)."""
    keys, log_probs = model.keys[n - 1], model.log_probs[n - 1]
    lower = model.log_prob(n - 1, keys % model.base ** (n - 1))
    _, where, mass, below = model.masses(n, lower)
    rest, rest_below = _rest(mass)[where], _rest(below)[where]
    backoff = np.log(rest / rest_below)
    without = np.log((rest + np.exp(log_probs)) / (rest_below + np.exp(lower)))
    frequency = frequencies(corpora, weights, n - 1, keys // model.base)
    return -frequency * (np.exp(log_probs) * (lower + without - log_probs) + rest * (without - backoff))
