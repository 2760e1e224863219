"""Histories of words against the n-gram models that they were read from."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from asr_kd.common.errors import UserError
from asr_kd.lang import ngram
from asr_kd.lang.arpa import write_arpa
from asr_kd.lang.histories import Histories, read_histories

NAMES = [f"W{i}" for i in range(8)]
NUMBERS = {"<eps>": 0, "<UNK>": 1, **{name: 2 + i for i, name in enumerate(NAMES)}, "#0": 10, "<s>": 11, "</s>": 12}


def total(model: Histories, words: list[int]) -> float:
    """The log-probability of a sentence of ids of ``NUMBERS``."""
    state, score = np.array([model.start]), 0.0
    for word in words:
        gain, state = model.step(state, np.array([word]))
        score += float(gain[0])
    return score + float(model.end(state)[0])


@pytest.mark.parametrize(("order", "prune"), [(1, 0.0), (2, 0.0), (4, 0.0), (4, 1e-3)])
def test_sentences_have_the_probability_of_the_model(tmp_path: Path, order: int, prune: float) -> None:
    rng = np.random.default_rng(0)
    sentences = [(rng.integers(0, 8, size=rng.integers(1, 7)) ** 2 // 7).tolist() for _ in range(80)]
    counts = ngram.count(sentences, 8, order)
    model = ngram.kneser_ney(counts)
    model = ngram.prune(model, [counts], [1.0], prune) if prune else model
    write_arpa(tmp_path / "lm.arpa", model, NAMES)
    histories = read_histories(tmp_path / "lm.arpa", NUMBERS, "upper")
    for sentence in [*sentences[:20], [7, 7, 0, 7], []]:
        expected = float(ngram.score(model, [sentence]).sum())
        assert total(histories, [word + 2 for word in sentence]) == pytest.approx(expected, abs=1e-4)
    states, words = np.array([*itertools.product(range(histories.num_states), range(2, 10))]).T
    log_probs, _ = histories.step(states, words)
    sums = np.exp(log_probs).reshape(-1, 8).sum(1) + np.exp(histories.end(np.arange(histories.num_states)))
    np.testing.assert_allclose(sums, 1, atol=1e-4)


ARPA = """\\data\\
ngram 1={n}
ngram 2=4
ngram 3=2

\\1-grams:
-99 <s> -0.25
-0.5 </s>
-0.5 w0 -0.3
-0.75 w1 -0.1
-1 w2
-1.5 ELSE
{unknown}
\\2-grams:
-0.2 <s> w0 -0.05
-0.4 w0 w1
-0.6 w0 ELSE
-0.7 ELSE w0

\\3-grams:
-0.1 <s> w0 w2
-0.3 w2 w1 w0

\\end\\
"""


def test_histories_without_their_ends_and_words_without_histories(tmp_path: Path) -> None:
    """w2 w1 w0 has no listed history, and after <s> w0 w2 only the empty one is left."""
    (tmp_path / "lm.arpa").write_text(ARPA.format(n=6, unknown=""))
    model = read_histories(tmp_path / "lm.arpa", {name: 2 + i for i, name in enumerate(NAMES[:3])}, "upper")
    for words, expected in (
        ([2, 4, 3, 2], -0.2 - 0.1 - 0.75 + (-0.1 - 0.5) + (-0.3 - 0.5)),
        ([2, 3], -0.2 + (-0.05 - 0.4) + (-0.1 - 0.5)),
        ([4], (-0.25 - 1) - 0.5),
        ([], -0.25 - 0.5),
    ):
        assert total(model, words) == pytest.approx(expected * math.log(10))


@pytest.mark.parametrize(
    ("unknown", "cost", "told"),
    [("", 1.0, "its least probable word"), ("-2 <UNK> -0.5\n", 2.0, "the probability of <unk>")],
)
def test_words_that_the_model_lacks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, unknown: str, cost: float, told: str
) -> None:
    (tmp_path / "lm.arpa").write_text(ARPA.format(n=6 + bool(unknown), unknown=unknown))
    model = read_histories(tmp_path / "lm.arpa", NUMBERS, "upper")
    assert "lacks 5 of the 8 words of the graph, such as W3" in caplog.text and told in caplog.text
    after = 0.5 if unknown else 0
    for word in (NUMBERS["W3"], NUMBERS["<UNK>"]):
        assert total(model, [2, word]) == pytest.approx((-0.2 - 0.05 - 0.3 - cost - after - 0.5) * math.log(10))


def test_models_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    (tmp_path / "lm.arpa").write_text(ARPA.format(n=6, unknown=""))
    with pytest.raises(UserError, match="none of the 1 words of the graph"):
        read_histories(tmp_path / "lm.arpa", {"OTHER": 1}, "upper")
    with pytest.raises(UserError, match="cannot be read"):
        read_histories(tmp_path / "absent.arpa", NUMBERS, "upper")
    for text, reason in ((ARPA.format(n=7, unknown=""), "6 1-grams"), ("W0 W1\n", "no .data.")):
        (tmp_path / "bad.arpa").write_text(text)
        with pytest.raises(UserError, match=reason):
            read_histories(tmp_path / "bad.arpa", NUMBERS, "upper")
