"""Decision trees: growth, Kaldi's file format, agreement with Kaldi's own lookup."""

from __future__ import annotations

import itertools
from pathlib import Path

import kaldi_hmm_gmm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.common.errors import UserError
from asr_kd.hmm.kaldi_io import make_tree, read_tree, tree_bytes, write_tree
from asr_kd.hmm.tree import (
    ContextStats,
    Node,
    PhoneSets,
    Tree,
    build_tree,
    log_likelihood,
    monophone_tree,
    phone_questions,
    variance_floor,
)

PHONES = [1, 2, 3, 4, 5, 6, 7, 8]  # 1 SIL, 2 SPN, 3 to 8 speech
CLASSES = {1: 1, 2: 1, **dict.fromkeys(range(3, 9), 3)}
DIM = 4


def statistics(frames: int = 6000, seed: int = 0, spoken_noise: bool = True) -> ContextStats:
    """Frames whose mean depends on the centre phone, its state, and whether the left phone is 3 or 4."""
    rng = np.random.default_rng(seed)
    centre = rng.choice([1, *([2] if spoken_noise else []), *range(3, 9)], frames)
    left, right = rng.choice([0, 1, *range(3, 9)], (2, frames))
    state = np.where(centre > 2, rng.integers(0, 3, frames), 0)
    contexts = np.column_stack([left, centre, right, state]).astype(np.int32)
    means = rng.normal(0, 2, (9, 3, DIM))
    offset = 1.5 * np.isin(left, [3, 4])[:, None]
    return ContextStats.collect(contexts, means[centre, state] + offset + rng.normal(0, 1, (frames, DIM)))


SETS = PhoneSets([1, 2], [frozenset([phone]) for phone in range(3, 9)])


def grown(leaves: int = 40, min_gain: float = 0, **more: float) -> Tree:
    return build_tree(statistics(), SETS, CLASSES, leaves, min_gain=min_gain, **more)


def test_statistics_are_sums_over_distinct_contexts() -> None:
    rng = np.random.default_rng(1)
    contexts = rng.integers(0, 3, (500, 4)).astype(np.int32)
    frames = rng.normal(0, 1, (500, DIM)).astype(np.float32)
    both = ContextStats.collect(contexts, frames)
    parts = ContextStats.merge(
        ContextStats.collect(contexts[part], frames[part]) for part in (slice(0, 123), slice(123, 500))
    )
    np.testing.assert_array_equal(both.contexts, np.unique(contexts, axis=0))
    np.testing.assert_allclose(both.stats, parts.stats)
    mask = (contexts == both.contexts[7]).all(1)
    np.testing.assert_allclose(
        both.stats[7], [mask.sum(), *frames[mask].sum(0), *np.square(frames[mask]).sum(0)], rtol=1e-5, atol=1e-5
    )


def test_likelihood_is_that_of_the_maximum_likelihood_gaussian() -> None:
    frames = np.random.default_rng(2).normal(3, 2, (400, DIM))
    stats = np.concatenate([[400], frames.sum(0), np.square(frames).sum(0)])
    variance = frames.var(0)
    direct = -0.5 * (np.log(2 * np.pi * variance) + (frames - frames.mean(0)) ** 2 / variance).sum()
    assert log_likelihood(stats, np.full(DIM, 1e-6)) == pytest.approx(direct)


def test_kaldi_reads_writes_and_looks_up_the_same(tmp_path: Path) -> None:
    tree = grown()
    write_tree(tmp_path / "tree", tree_bytes(tree.root))
    kaldi = read_tree(tmp_path / "tree")
    assert (kaldi.context_width, kaldi.central_position, kaldi.num_pdfs) == (3, 1, tree.num_pdfs)
    kaldi.write(True, str(tmp_path / "again"))
    assert (tmp_path / "again").read_bytes() == (tmp_path / "tree").read_bytes()
    around = [0, *PHONES]
    contexts = [
        (left, centre, right, state)
        for left, centre, right in itertools.product(around, PHONES, around)
        for state in range(CLASSES[centre])
    ]
    ours = [tree.root.lookup(context) for context in contexts]
    assert ours == [kaldi.compute(context[:3], context[3])[1] for context in contexts]
    assert set(ours) == set(range(tree.num_pdfs))


def test_number_of_leaves_is_met_and_gain_grows_with_it() -> None:
    gains = []
    for leaves in (3, 8, 20, 60):
        tree = grown(leaves)
        assert tree.num_pdfs == leaves
        gains.append(tree.gain)
    assert gains == sorted(gains) and gains[0] >= 0


def test_splitting_stops_at_the_minimum_leaf_size() -> None:
    tree = grown(leaves=5000, min_frames=100)
    stats = statistics()
    pdfs = np.array([tree.root.lookup(context) for context in stats.contexts.tolist()])
    frames = np.bincount(pdfs, stats.stats[:, 0])
    assert tree.num_pdfs < 100 and frames[2:].min() >= 100


def test_leaves_of_silence_are_context_independent() -> None:
    tree = grown()
    assert tree.silence_pdfs == [0, 1]
    assert {tree.root.lookup((left, 1, right, 0)) for left in PHONES for right in PHONES} == {0}
    assert {tree.root.lookup((left, 2, right, 0)) for left in PHONES for right in PHONES} == {1}
    shared = build_tree(statistics(spoken_noise=False), SETS, CLASSES, 40)
    assert shared.silence_pdfs == [0] and shared.root.lookup((3, 2, 3, 0)) == 0
    three = build_tree(statistics(), SETS, {**CLASSES, 1: 3, 2: 3}, 40)
    assert three.silence_pdfs == [0, 1, 2, 3, 4, 5] and three.root.lookup((0, 2, 0, 2)) == 5


def test_relevant_contexts_are_split() -> None:
    tree = grown(leaves=120, min_frames=20)
    for centre, state in itertools.product(range(3, 9), range(3)):
        near = {tree.root.lookup((left, centre, 5, state)) for left in (3, 4)}
        far = {tree.root.lookup((left, centre, 5, state)) for left in (5, 6, 7, 8)}
        assert not near & far


def test_questions_cluster_similar_phones() -> None:
    rng = np.random.default_rng(3)
    centre = rng.integers(3, 9, 3000)
    contexts = np.column_stack([centre * 0, centre, centre * 0, centre * 0]).astype(np.int32)
    frames = (centre[:, None] // 2 - 1) * 10.0 + rng.normal(0, 1, (3000, DIM))  # similar: 4 and 5, 6 and 7
    questions = phone_questions(ContextStats.collect(contexts, frames), SETS.alike)
    assert frozenset([4, 5]) in questions and frozenset([6, 7]) in questions
    assert all(frozenset([phone]) in questions for phone in range(3, 9))
    assert frozenset([5, 6]) not in questions


def test_a_split_must_gain_enough() -> None:
    """The lowest gain that splits a leaf bounds how many leaves there are, whatever number is allowed."""
    sizes = [grown(leaves=5000, min_frames=1, min_gain=gain).num_pdfs for gain in (0, 100, 300, 1e9)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[1] > sizes[2] > sizes[3] == 3
    allowed = grown(leaves=sizes[2], min_frames=1)
    limited = grown(leaves=5000, min_frames=1, min_gain=300)
    assert tree_bytes(allowed.root) == tree_bytes(limited.root)  # the same splits, in the order of their gain


def test_phones_that_differ_in_their_position_alone() -> None:
    """They are one phone to the clustering, share the leaves of monophones, and can be told apart by the tree."""
    alike = [frozenset([3, 4]), frozenset([5, 6]), frozenset([7, 8])]
    positions = [frozenset([3, 5, 7]), frozenset([4, 6, 8])]
    tree = build_tree(statistics(), PhoneSets([1, 2], alike, positions), CLASSES, 120, min_frames=20, min_gain=0)
    assert set(tree.questions) <= {*alike, *positions, *(a | b for a, b in itertools.combinations(alike, 2))}
    assert set(positions) <= set(tree.questions)
    assert tree.root.lookup((0, 3, 0, 0)) != tree.root.lookup((0, 4, 0, 0))
    shared = monophone_tree(PHONES, CLASSES, alike)
    leaves = [[shared.lookup((0, phone, 0, state)) for state in range(3)] for phone in range(3, 9)]
    assert leaves == [[2, 3, 4], [2, 3, 4], [5, 6, 7], [5, 6, 7], [8, 9, 10], [8, 9, 10]]
    kaldi = make_tree(tree_bytes(shared))
    assert kaldi.compute([0, 8, 0], 1)[1] == 9


def test_too_few_leaves_for_silence_are_an_error() -> None:
    with pytest.raises(ValueError, match="silence alone has 2"):
        grown(leaves=2)


def test_monophone_tree_equals_that_of_kaldi() -> None:
    kaldi = kaldi_hmm_gmm.monophone_context_dependency(PHONES, [-1, *(CLASSES[p] for p in PHONES)])
    ours = monophone_tree(PHONES, CLASSES)
    for phone in PHONES:
        for state in range(CLASSES[phone]):
            assert ours.lookup((0, phone, 0, state)) == kaldi.compute([phone], state)[1]


def test_missing_and_damaged_trees_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        read_tree(tmp_path / "tree")
    write_tree(tmp_path / "tree", tree_bytes(grown().root)[:-9])
    with pytest.raises(UserError, match="damaged"):
        read_tree(tmp_path / "tree")


_leaf = st.builds(Node, leaf=st.integers(0, 99))
_node = st.recursive(
    _leaf,
    lambda children: st.one_of(
        st.builds(
            Node,
            key=st.sampled_from([-1, 0, 1, 2]),
            yes_set=st.frozensets(st.integers(0, 5), min_size=1),
            yes=children,
            no=children,
        ),
        st.builds(
            Node,
            key=st.sampled_from([-1, 0, 1, 2]),
            table=st.lists(st.one_of(st.none(), children), min_size=1, max_size=4).map(tuple),
        ),
    ),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(_node, st.lists(st.tuples(*[st.integers(0, 6)] * 4), min_size=1, max_size=20))
def test_kaldi_looks_up_the_same_in_any_tree(root: Node, contexts: list[tuple[int, int, int, int]]) -> None:
    kaldi = make_tree(tree_bytes(root))
    for left, centre, right, state in contexts:
        found, pdf = kaldi.compute([left, centre, right], state)
        expected = root.lookup((left, centre, right, state))
        assert found == (expected is not None) and (not found or pdf == expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 30))
def test_splitting_never_decreases_the_likelihood(seed: int, leaves: int) -> None:
    stats = statistics(400, seed)
    tree = build_tree(stats, SETS, CLASSES, leaves, min_frames=5, min_gain=0)
    spoken = stats.contexts[:, 1] > 2
    floor = variance_floor(stats.stats[spoken].sum(0))
    pdfs = np.array([tree.root.lookup(context) for context in stats.contexts[spoken].tolist()])
    split = sum(log_likelihood(stats.stats[spoken][pdfs == pdf].sum(0), floor) for pdf in np.unique(pdfs))
    unsplit = log_likelihood(stats.stats[spoken].sum(0), floor)
    assert tree.gain >= 0
    assert split - unsplit == pytest.approx(tree.gain * stats.stats[spoken, 0].sum(), rel=1e-6, abs=1e-3)
