"""N-gram models: counts, Kneser-Ney smoothing, interpolation, pruning."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.lang import ngram

VOCABULARY = 5
corpora = st.lists(st.lists(st.integers(-1, VOCABULARY - 1), max_size=7), min_size=1, max_size=25)


def sums(model: ngram.BackoffModel, histories: np.ndarray, n: int) -> np.ndarray:
    """Σ P(w | h) over all words and the sentence end, for histories of n − 1 words."""
    words = np.arange(model.base - 1)
    keys = (histories[:, None] * model.base + words).ravel()
    return np.exp(model.log_prob(n, keys)).reshape(len(histories), -1).sum(1)


def assert_normalised(model: ngram.BackoffModel) -> None:
    bos = model.base - 1
    for n in range(1, model.order + 2):
        histories = np.arange(model.base ** (n - 1))
        # Only the first word of a history can be <s>, and none can be </s>.
        digits = [(histories // model.base**i) % model.base for i in range(n - 1)]
        valid = np.ones(len(histories), bool)
        for position, digit in enumerate(digits):
            valid &= (digit < model.base - 2) | ((digit == bos) & (position == n - 2))
        np.testing.assert_allclose(sums(model, histories[valid], n), 1.0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(corpora, st.integers(1, 3))
def test_kneser_ney_sums_to_one_after_every_history(sentences, order):
    assert_normalised(ngram.kneser_ney(ngram.count(sentences, VOCABULARY, order)))


@settings(max_examples=25, deadline=None)
@given(corpora, corpora, st.floats(0.05, 0.95), st.sampled_from([1e-6, 1e-3, 1e-2, 1.0]), st.integers(2, 3))
def test_interpolated_and_pruned_models_sum_to_one(first, second, share, threshold, order):
    counts = [ngram.count(s, VOCABULARY, order) for s in (first, second)]
    model = ngram.interpolate([ngram.kneser_ney(c) for c in counts], [share, 1 - share])
    assert_normalised(model)
    pruned = ngram.prune(model, counts, [share, 1 - share], threshold)
    assert_normalised(pruned)
    assert sum(pruned.sizes) <= sum(model.sizes)
    for n in range(2, pruned.order + 1):  # ARPA readers need every history to be listed
        assert np.isin(pruned.keys[n - 1] // pruned.base, pruned.keys[n - 2]).all()


def test_counts_by_hand():
    counts = ngram.count([[0, 1, -1, 1], [0, 1]], 2, 3)  # base 4: words 0 and 1, </s> 2, <s> 3
    assert dict(zip(counts.keys[0].tolist(), counts.counts[0].tolist(), strict=True)) == {0: 2, 1: 3, 2: 2, 3: 2}
    bigrams = {(3, 0): 2, (0, 1): 2, (1, 2): 2}
    assert dict(zip(counts.keys[1].tolist(), counts.counts[1].tolist(), strict=True)) == {
        a * 4 + b: n for (a, b), n in bigrams.items()
    }
    assert counts.keys[2].tolist() == [0 * 16 + 1 * 4 + 2, 3 * 16 + 0 * 4 + 1]
    assert counts.tokens == 7


def test_counts_do_not_depend_on_the_chunk_size(monkeypatch):
    sentences = np.random.default_rng(0).integers(-1, 9, (200, 6)).tolist()
    expected = ngram.count(sentences, 9, 3)
    monkeypatch.setattr(ngram, "CHUNK", 50)
    chunked = ngram.count(sentences, 9, 3)
    for a, b in zip(expected.keys + expected.counts, chunked.keys + chunked.counts, strict=True):
        np.testing.assert_array_equal(a, b)


def reference(sentences: list[list[str]], history: tuple[str, ...], word: str, vocabulary: int) -> float:
    """Interpolated modified Kneser-Ney bigrams in plain Python."""
    padded = [["<s>", *s, "</s>"] for s in sentences]
    bigrams = Counter(pair for s in padded for pair in itertools.pairwise(s))
    unigrams = Counter(b for _, b in bigrams)  # the number of contexts of each word

    def discounted(counts, key, siblings):
        discounts = [0.0, *ngram._discounts(np.array(list(counts.values())))]
        total = sum(counts[k] for k in siblings)
        backoff = sum(discounts[min(counts[k], 3)] for k in siblings) / total
        return (counts[key] - discounts[min(counts[key], 3)]) / total, backoff

    probability, backoff = discounted(unigrams, word, list(unigrams))
    lower = probability + backoff / (vocabulary + 1)
    siblings = [pair for pair in bigrams if pair[:1] == history]
    if not siblings:
        return lower
    probability, backoff = discounted(bigrams, (*history, word), siblings)
    return probability + backoff * lower


def test_kneser_ney_equals_a_plain_implementation():
    random = np.random.default_rng(1)
    words = list("abcdefgh")
    sentences = [[words[i] for i in random.zipf(1.6, 6) % 8] for _ in range(80)]
    ids = {word: i for i, word in enumerate([*words, "</s>", "<s>"])}
    model = ngram.kneser_ney(ngram.count([[ids[w] for w in s] for s in sentences], len(words), 2))
    for history in [*words, "<s>"]:
        for word in [*words, "</s>"]:
            log_prob = model.log_prob(2, np.array([ids[history] * model.base + ids[word]]))[0]
            assert math.exp(log_prob) == pytest.approx(reference(sentences, (history,), word, len(words)), rel=1e-9)


def zipf_sentences(seed: int, words: int = 30, count: int = 300) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [[int(i) % words for i in random.zipf(1.5, 8)] for _ in range(count)]


def test_interpolation_weights_maximise_the_likelihood():
    models = [ngram.kneser_ney(ngram.count(zipf_sentences(seed, count=60), 30, 2)) for seed in (1, 2)]
    dev = zipf_sentences(3, count=40)
    weights = ngram.interpolation_weights(models, dev)
    probs = np.exp([ngram.score(model, dev) for model in models])
    grid = np.linspace(0, 1, 101)
    likelihood = [np.log(w * probs[0] + (1 - w) * probs[1]).mean() for w in grid]
    assert weights.sum() == pytest.approx(1)
    assert weights[0] == pytest.approx(grid[int(np.argmax(likelihood))], abs=0.011)
    perplexity = ngram.perplexity(ngram.score(ngram.interpolate(models, weights), dev))
    assert perplexity <= min(ngram.perplexity(ngram.score(model, dev)) for model in models)


def without(model: ngram.BackoffModel, n: int, index: int) -> ngram.BackoffModel:
    keys, log_probs = list(model.keys), list(model.log_probs)
    keys[n - 1], log_probs[n - 1] = np.delete(keys[n - 1], index), np.delete(log_probs[n - 1], index)
    out = ngram.BackoffModel(model.base, keys, log_probs, [np.zeros(len(k)) for k in keys])
    out.renormalise()
    return out


@pytest.mark.parametrize("order", [2, 3])
def test_pruning_loss_is_the_relative_entropy(order):
    counts = ngram.count(zipf_sentences(0, words=6, count=30), 6, order)
    model = ngram.kneser_ney(counts)
    loss = ngram.pruning_loss(model, order, [counts], [1.0])
    histories, words = counts.keys[order - 2], np.arange(model.base - 1)
    grid = (histories[:, None] * model.base + words).ravel()
    before = model.log_prob(order, grid).reshape(len(histories), -1)
    frequency = counts.counts[order - 2] / counts.tokens
    for index in range(0, len(loss), 5):
        after = without(model, order, index).log_prob(order, grid).reshape(len(histories), -1)
        entropy = (frequency * (np.exp(before) * (before - after)).sum(1)).sum()
        assert loss[index] == pytest.approx(entropy, rel=1e-6, abs=1e-12)


def test_higher_thresholds_prune_more():
    counts = ngram.count(zipf_sentences(0), 30, 3)
    model = ngram.kneser_ney(counts)
    pruned = [ngram.prune(model, [counts], [1.0], threshold) for threshold in (1e-5, 1e-4, 1e-3, 1e9)]
    models = [model, *pruned]
    sizes = [sum(model.sizes) for model in models]
    perplexities = [ngram.perplexity(ngram.score(model, zipf_sentences(0))) for model in models]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[1] and sizes[-1] == model.base
    assert perplexities == sorted(perplexities)
