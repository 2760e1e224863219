"""Best paths, sums, pruning and minimum Bayes risk against the enumeration of every path of small lattices."""

from __future__ import annotations

import itertools

import kaldialign
import numpy as np
import pytest

pytest.importorskip("kaldifst")
from asr_kd.decode.lattices import Frames, prune
from asr_kd.decode.mbr import Risk, WordArc, minimum_risk, word_lattice
from asr_kd.decode.worker import Lattice


def random_lattice(seed: int, frames: int = 6, width: int = 3, vocabulary: int = 4) -> Lattice:
    """Up to ``width`` states per frame, some of them dead ends; up to two words on an arc."""
    rng = np.random.default_rng(seed)
    layers, states = [[0]], 1
    for _ in range(frames):
        layers.append(list(range(states, states + int(rng.integers(1, width + 1)))))
        states += len(layers[-1])
    layers.append([states])
    arcs, words = [], []
    for layer, following in itertools.pairwise(layers):
        sources = rng.choice(layer, size=len(following) + 2)  # a state without a successor is a dead end
        targets = [*following, *rng.choice(following, size=2)]
        arcs += [(int(s), int(t), -1 if t == states else 1) for s, t in zip(sources, targets, strict=True)]
    arcs.sort()
    for _ in arcs:
        words.append(rng.integers(1, vocabulary + 1, size=rng.choice([0, 1, 2], p=[0.4, 0.5, 0.1])))
    splits = np.concatenate([[0], np.cumsum([len(w) for w in words])]).astype(np.int32)
    scores = rng.normal(scale=0.7, size=(len(arcs), 2)).astype(np.float32)
    return Lattice(np.array(arcs, np.int32), scores, np.concatenate(words).astype(np.int32), splits)


def all_paths(lattice: Lattice) -> list[list[int]]:
    """The arcs of every path from the start to the end."""
    final, complete, partial = int(lattice.arcs[:, 1].max()), [], [(0, [])]
    while partial:
        state, path = partial.pop()
        if state == final:
            complete.append(path)
        partial += [(int(lattice.arcs[a, 1]), [*path, int(a)]) for a in np.flatnonzero(lattice.arcs[:, 0] == state)]
    return complete


LATTICES = [random_lattice(seed) for seed in range(40)]
LATTICES = [lattice for lattice in LATTICES if all_paths(lattice)]


def words_of(lattice: Lattice, path: list[int]) -> tuple[int, ...]:
    return tuple(int(w) for a in path for w in lattice.words[lattice.row_splits[a] : lattice.row_splits[a + 1]])


def test_best_paths_sums_and_pruning_agree_with_enumeration() -> None:
    assert len(LATTICES) > 30
    pruned = 0
    for lattice in LATTICES:
        paths, frames = all_paths(lattice), Frames(lattice)
        scores = np.stack([frames.scores(1.0, 0.0), frames.scores(0.3, 1.0)], axis=1)
        graph, acoustic = lattice.scores.astype(float).T
        np.testing.assert_allclose(scores[:, 1], graph + 0.3 * acoustic - np.diff(lattice.row_splits))
        found = frames.best_paths(scores)
        for column in range(2):
            totals = [scores[path, column].sum() for path in paths]
            assert scores[found[:, column], column].sum() == pytest.approx(max(totals))
            assert frames.words(found[:, column]) == list(words_of(lattice, paths[int(np.argmax(totals))]))
            before, after = frames.totals(scores[:, column])
            assert before[-1] == pytest.approx(np.logaddexp.reduce(totals)) == after[0]
        totals = [scores[path, 0].sum() for path in paths]
        good = {arc for path, total in zip(paths, totals, strict=True) if total >= max(totals) - 2 for arc in path}
        smaller = prune(lattice, scores[:, 0], 2.0)
        np.testing.assert_array_equal(smaller.scores, lattice.scores[sorted(good)])
        np.testing.assert_array_equal(smaller.words, [w for arc in sorted(good) for w in words_of(lattice, [arc])])
        assert Frames(smaller).totals(Frames(smaller).scores(1, 0), best=True)[0][-1] == pytest.approx(max(totals))
        pruned += len(smaller.arcs) < len(lattice.arcs)
    assert pruned > 20


def test_states_out_of_order_are_refused() -> None:
    arcs = np.array([[0, 2, 1], [1, 3, 1], [2, 1, 1], [3, 4, -1]], np.int32)
    with pytest.raises(ValueError, match="not numbered by frame"):
        Frames(Lattice(arcs, np.zeros((4, 2), np.float32), np.zeros(0, np.int32), np.zeros(5, np.int32)))


# ------------------------------------------------------------------------------------------- minimum Bayes risk


def posteriors(lattice: Lattice, scores: np.ndarray) -> dict[tuple[int, ...], float]:
    """The probability of every sequence of words, by its best path."""
    best: dict[tuple[int, ...], float] = {}
    for path in all_paths(lattice):
        words = words_of(lattice, path)
        best[words] = max(best.get(words, -np.inf), float(scores[path].sum()))
    total = np.logaddexp.reduce(list(best.values()))
    return {words: float(np.exp(score - total)) for words, score in best.items()}


def true_risk(found: dict[tuple[int, ...], float], hypothesis: list[int]) -> float:
    return sum(p * kaldialign.edit_distance(list(words), hypothesis)["total"] for words, p in found.items())


def test_every_sequence_of_words_has_the_probability_of_its_best_path() -> None:
    for lattice in LATTICES:
        scores = Frames(lattice).scores(1.0, 0.0)
        arcs, shares = word_lattice(lattice, scores, 100.0), {}
        paths = [(arcs[-1].target, (), 1.0)]
        while paths:
            state, words, share = paths.pop()
            if state == 0:
                shares[words] = share
            for arc in (arc for arc in arcs if arc.target == state):
                paths.append((arc.source, ((arc.word,) if arc.word else ()) + words, share * arc.share))
        assert shares == pytest.approx(posteriors(lattice, scores), abs=2e-3)


def test_the_risk_and_its_minimum_against_enumeration() -> None:
    """The recursion aligns each arc once, so it may find more errors than there are, but never fewer."""
    risks = []
    for lattice in LATTICES:
        scores = Frames(lattice).scores(1.0, 0.0)
        found = posteriors(lattice, scores)
        arcs = word_lattice(lattice, scores, 100.0)
        best = list(max(found, key=lambda words: found[words]))
        first = Risk(arcs, best)
        for place in first.posteriors:
            assert sum(place.values()) == pytest.approx(1)
        words, confidences, expected = minimum_risk(arcs, best)
        assert len(confidences) == len(words) and all(0 < c <= 1 for c in confidences)
        for estimate, hypothesis in ((first.expected, best), (expected, words)):
            assert -2e-3 < estimate - true_risk(found, hypothesis) < 0.3
        assert expected <= first.expected + 1e-9
        lowest = min(true_risk(found, list(candidate)) for candidate in found)
        risks.append((true_risk(found, best), true_risk(found, words), lowest))
    path, mbr, lowest_of_all = np.array(risks).T
    assert (mbr < path - 0.01).sum() >= 8 and (mbr < path + 0.02).all()
    assert (mbr - lowest_of_all).mean() < 0.5 * (path - lowest_of_all).mean()


def test_places_are_decided_one_by_one() -> None:
    """The best path, 1 2, begins with a word that is less probable than 4, with which the others begin."""
    arcs = [
        WordArc(0, 1, 1, 1.0), WordArc(0, 2, 4, 1.0), WordArc(0, 3, 4, 1.0),
        WordArc(1, 4, 2, 0.4), WordArc(2, 4, 2, 0.3), WordArc(3, 4, 5, 0.3),
    ]  # fmt: skip
    words, confidences, expected = minimum_risk(arcs, [1, 2])
    assert words == [4, 2] and confidences == pytest.approx([0.6, 0.7])
    assert expected == pytest.approx(0.7, abs=1e-4)
    words, confidences, expected = minimum_risk([WordArc(0, 1, 0, 1.0)], [])
    assert words == [] and confidences == [] and expected == 0
