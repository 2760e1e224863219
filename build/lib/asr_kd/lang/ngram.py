"""Back-off n-gram models in NumPy arrays: counts, modified Kneser-Ney smoothing, interpolation, entropy pruning.

The V words have the ids 0 … V−1; ``</s>`` is V and ``<s>`` is V+1.  An n-gram is one int64 key, whose digits to the
base V+2 are the ids of its words: sorting, the history (key // base) and the suffix (key % base**(n−1)) are plain
arithmetic.  Words outside the vocabulary have the id −1: they cut off the history and are never predicted.
Logarithms are natural.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

CHUNK = 4_000_000  # tokens counted at a time, which bounds the memory on texts of any length
#: Discounts of the counts 1, 2 and 3+, for corpora that are too small to estimate them.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class Counts:
    """Raw n-gram counts of one corpus.

    Attributes:
        base: V + 2.
        keys: sorted int64 keys for n = 1, 2, …; those for n = 1 are all ids, whether they occur or not.
        counts: int64 counts of ``keys``; the count of ``<s>`` is the number of sentences.
    """

    base: int
    keys: list[np.ndarray]
    counts: list[np.ndarray]

    @property
    def order(self) -> int:
        return len(self.keys)

    @property
    def words(self) -> int:
        """Number of running words in the vocabulary."""
        return int(self.counts[0][:-2].sum())

    @property
    def tokens(self) -> int:
        """Number of running words in the vocabulary and sentence ends."""
        return int(self.counts[0][:-1].sum())


def count(sentences: Iterable[Sequence[int]], vocabulary: int, order: int) -> Counts:
    """Count the n-grams of all orders up to ``order``, or up to the highest order that occurs.

    Args:
        sentences: word ids in [0, vocabulary), or −1.
        vocabulary: size V of the vocabulary.
        order: maximum order.

    Raises:
        ValueError: n-grams of this order do not fit into 64 bits.
    """
    base = vocabulary + 2
    if order < 1 or order * np.log2(base) >= 63:
        raise ValueError(f"n-grams of order {order} over {vocabulary} words do not fit into 64 bits")
    keys = [np.arange(base)] + [np.zeros(0, np.int64)] * (order - 1)
    counts = [np.zeros(len(k), np.int64) for k in keys]
    for tokens in _chunks(sentences, base):
        for n, (window, valid) in enumerate(_windows(tokens, base, order)):
            new, new_counts = np.unique(window[valid], return_counts=True)
            keys[n], counts[n] = _merge([keys[n], new], [counts[n], new_counts])
    highest = max(n for n, ngrams in enumerate(keys, 1) if len(ngrams))
    return Counts(base, keys[:highest], counts[:highest])


def _chunks(sentences: Iterable[Sequence[int]], base: int) -> Iterator[np.ndarray]:
    """Yield arrays of about ``CHUNK`` ids, of complete sentences with <s> and </s>."""
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
    """Yield, for n = 1 … order, the n-gram that ends at each token and whether it is valid."""
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
    union, inverse = np.unique(np.concatenate(keys), return_inverse=True)
    return union, np.bincount(inverse, np.concatenate(counts), len(union)).astype(np.int64)


def _find(sorted_keys: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the index of each of ``keys`` in ``sorted_keys``, and whether it is there (otherwise: any index)."""
    indices = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    return indices, sorted_keys[indices] == keys


@dataclass
class BackoffModel:
    """P(w | h) = exp(log_prob) for listed n-grams, otherwise exp(backoff(h)) · P(w | h without its first word).

    Attributes:
        base: V + 2.
        keys: sorted int64 n-grams for n = 1, 2, …; those for n = 1 are all ids.
        log_probs: float64 log-probabilities of ``keys``; −inf for ``<s>``.
        backoffs: float64 logarithms of the back-off weights of ``keys`` as histories.
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
        """Return the log-probability of the last word of each n-gram given the others: (K,) int64 to (K,) float64."""
        if n > self.order:
            return self.log_prob(self.order, keys % self.base**self.order)
        indices, listed = _find(self.keys[n - 1], keys)
        out = self.log_probs[n - 1][indices]
        if not listed.all():
            rest = keys[~listed]
            lower = self.log_prob(n - 1, rest % self.base ** (n - 1))
            indices, has_backoff = _find(self.keys[n - 2], rest // self.base)
            out[~listed] = lower + np.where(has_backoff, self.backoffs[n - 2][indices], 0.0)
        return out

    def renormalise(self) -> None:
        """Set all back-off weights so that the probabilities after each history sum to one."""
        for n in range(2, self.order + 1):
            lower = self.log_prob(n - 1, self.keys[n - 1] % self.base ** (n - 1))
            indices, history, mass, lower_mass = self.listed_mass(n, lower)
            # If a history lists every word, there is nothing to back off to: its own probabilities are normalised.
            full = lower_mass > 1 - 1e-9
            self.log_probs[n - 1] = self.log_probs[n - 1] - np.where(full, np.log(mass), 0.0)[history]
            self.backoffs[n - 2] = np.zeros(len(self.keys[n - 2]))
            self.backoffs[n - 2][indices] = np.where(full, 0.0, np.log(_remainder(mass) / _remainder(lower_mass)))

    def listed_mass(self, n: int, lower: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Sum the probabilities of the words that each history of the n-grams lists.

        Args:
            n: order.
            lower: log-probability of the last word of each n-gram after the shortened history, (K,).

        Returns:
            the indices of the H histories among the (n−1)-grams; the history of each n-gram, (K,) in [0, H); the
            probability mass of the listed words after the history, and after the shortened history, (H,).
        """
        histories, history = np.unique(self.keys[n - 1] // self.base, return_inverse=True)
        indices, _ = _find(self.keys[n - 2], histories)
        mass, lower_mass = (np.bincount(history, np.exp(p), len(histories)) for p in (self.log_probs[n - 1], lower))
        return indices, history, mass, lower_mass


def _remainder(mass: np.ndarray) -> np.ndarray:
    # After a history that is followed by nearly all words, rounding must not make it negative.
    return np.maximum(1.0 - mass, 1e-12)


def kneser_ney(counts: Counts) -> BackoffModel:
    """Estimate a model with interpolated modified Kneser-Ney smoothing (Chen and Goodman 1999).

    Unigrams are interpolated with a uniform distribution.

    Raises:
        ValueError: there are no counts.
    """
    if not counts.tokens:
        raise ValueError("there are no words to estimate a language model from")
    base = counts.base
    model = BackoffModel(base, [], [], [])
    for n in range(1, counts.order + 1):
        keys, adjusted = counts.keys[n - 1], _adjusted(counts, n)
        histories, history = np.unique(keys // base if n > 1 else np.zeros(base, np.int64), return_inverse=True)
        discount = np.concatenate([[0.0], _discounts(adjusted)])[np.minimum(adjusted, 3)]
        total = np.bincount(history, adjusted, len(histories))
        backoff = np.bincount(history, discount, len(histories)) / total
        lower = np.full(base, 1.0 / (base - 1)) if n == 1 else np.exp(model.log_prob(n - 1, keys % base ** (n - 1)))
        probs = (adjusted - discount) / total[history] + backoff[history] * lower
        if n == 1:
            probs[base - 1] = 0.0
        else:
            indices, _ = _find(model.keys[-1], histories)
            model.backoffs[-1][indices] = np.log(np.maximum(backoff, 1e-12))
        with np.errstate(divide="ignore"):
            model.log_probs.append(np.log(probs))
        model.keys.append(keys)
        model.backoffs.append(np.zeros(len(keys)))
    return model


def _adjusted(counts: Counts, n: int) -> np.ndarray:
    """Counts of order n: raw for the highest order, otherwise the number of distinct words before each n-gram.

    n-grams at the start of a sentence, which no word precedes, keep their raw counts.
    """
    keys, raw = counts.keys[n - 1], counts.counts[n - 1]
    bos = counts.base - 1
    if n == counts.order:
        adjusted = raw.copy()
    else:
        suffixes, extensions = np.unique(counts.keys[n] % counts.base**n, return_counts=True)
        adjusted = np.minimum(raw, 1)  # n-grams that follow only unknown words have no extension
        adjusted[_find(keys, suffixes)[0]] = extensions
        adjusted = np.where(keys // counts.base ** (n - 1) == bos, raw, adjusted)
    if n == 1:
        adjusted[bos] = 0
    return adjusted


def _discounts(adjusted: np.ndarray) -> np.ndarray:
    """Discounts of the counts 1, 2 and 3+."""
    ones, twos, threes, fours = (int((adjusted == k).sum()) for k in (1, 2, 3, 4))
    if not (ones and twos and threes and fours):
        return np.array(FALLBACK_DISCOUNTS)
    y = ones / (ones + 2 * twos)
    raw = (1 - 2 * y * twos / ones, 2 - 3 * y * threes / twos, 3 - 4 * y * fours / threes)
    return np.array([d if 0 < d < k else f for k, (d, f) in enumerate(zip(raw, FALLBACK_DISCOUNTS, strict=True), 1)])


def score(model: BackoffModel, sentences: Iterable[Sequence[int]]) -> np.ndarray:
    """Return the log-probability of each word in the vocabulary and each sentence end, given the full history."""
    parts = []
    for tokens in _chunks(sentences, model.base):
        out = np.zeros(len(tokens))
        for n, (window, valid) in enumerate(_windows(tokens, model.base, model.order), 1):
            out[valid] = model.log_prob(n, window[valid])
        parts.append(out[(tokens >= 0) & (tokens != model.base - 1)])
    return np.concatenate(parts) if parts else np.zeros(0)


def perplexity(log_probs: np.ndarray) -> float:
    """Return the perplexity for the log-probabilities from ``score``; NaN if there are none."""
    return float(np.exp(-log_probs.mean())) if len(log_probs) else float("nan")


def interpolation_weights(models: Sequence[BackoffModel], sentences: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the weights of linear interpolation that maximise the likelihood of ``sentences``, found by EM.

    The shape is (len(models),); the sum is 1.
    """
    probs = np.exp([score(model, sentences) for model in models])
    weights = np.full(len(models), 1.0 / len(models))
    for _ in range(200 if probs.size else 0):
        joint = weights[:, None] * probs
        updated = (joint / joint.sum(0)).mean(1)
        converged = np.abs(updated - weights).max() < 1e-5
        weights = updated
        if converged:
            break
    return weights


def interpolate(models: Sequence[BackoffModel], weights: Sequence[float] | np.ndarray) -> BackoffModel:
    """Return a back-off model of a linear interpolation, exact for all n-grams that any of the models lists."""
    order, base = max(model.order for model in models), models[0].base
    keys = [np.unique(np.concatenate([model.keys[n] for model in models if n < model.order])) for n in range(order)]
    log_probs = []
    for n in range(1, order + 1):
        with np.errstate(divide="ignore"):
            log_probs.append(
                np.log(sum(w * np.exp(m.log_prob(n, keys[n - 1])) for m, w in zip(models, weights, strict=True)))
            )
    model = BackoffModel(base, keys, log_probs, [np.zeros(len(k)) for k in keys])
    model.renormalise()
    return model


def relative_frequencies(
    corpora: Sequence[Counts], weights: Sequence[float] | np.ndarray, n: int, keys: np.ndarray
) -> np.ndarray:
    """Return the relative frequency of each n-gram, interpolated over the corpora with ``weights``, (K,)."""
    total = np.zeros(len(keys))
    for counts, weight in zip(corpora, weights, strict=True):
        if n > counts.order:
            continue
        indices, listed = _find(counts.keys[n - 1], keys)
        total += weight * np.where(listed, counts.counts[n - 1][indices], 0) / counts.tokens
    return total


def prune(
    model: BackoffModel, corpora: Sequence[Counts], weights: Sequence[float] | np.ndarray, threshold: float
) -> BackoffModel:
    """Remove n-grams whose removal increases the perplexity by less than ``threshold`` (relative).

    This is entropy pruning (Stolcke 1998), but with the relative frequencies of the histories in ``corpora`` instead
    of the probabilities of the model, because the lower orders of Kneser-Ney models misestimate these (Chelba et al.
    2010).
    """
    keys, log_probs = list(model.keys), list(model.log_probs)
    needed = np.zeros(0, np.int64)
    for n in range(model.order, 1, -1):
        loss = pruning_loss(model, n, corpora, weights)
        keep = (np.expm1(loss) >= threshold) | np.isin(keys[n - 1], needed)
        keys[n - 1], log_probs[n - 1] = keys[n - 1][keep], log_probs[n - 1][keep]
        needed = np.unique(keys[n - 1] // model.base)
    order = max(n for n, ngrams in enumerate(keys, 1) if len(ngrams))
    pruned = BackoffModel(model.base, keys[:order], log_probs[:order], [np.zeros(len(k)) for k in keys[:order]])
    pruned.renormalise()
    return pruned


def pruning_loss(
    model: BackoffModel, n: int, corpora: Sequence[Counts], weights: Sequence[float] | np.ndarray
) -> np.ndarray:
    """Return the relative entropy between the model and the model without each n-gram of order n, (K,)."""
    keys, log_probs = model.keys[n - 1], model.log_probs[n - 1]
    lower = model.log_prob(n - 1, keys % model.base ** (n - 1))
    _, history, mass, lower_mass = model.listed_mass(n, lower)
    rest, lower_rest = _remainder(mass)[history], _remainder(lower_mass)[history]
    backoff = np.log(rest / lower_rest)
    new_backoff = np.log((rest + np.exp(log_probs)) / (lower_rest + np.exp(lower)))
    frequency = relative_frequencies(corpora, weights, n - 1, keys // model.base)
    return -frequency * (np.exp(log_probs) * (lower + new_backoff - log_probs) + rest * (new_backoff - backoff))
