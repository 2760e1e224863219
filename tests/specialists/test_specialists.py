"""Specialists: clusters of classes, examples and dustbins, and the combined distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch.autograd.functional import hessian, jacobian

from asr_kd.common.errors import UserError
from asr_kd.models.dnn import dnn
from asr_kd.specialists.assign.clustering import Confusions, Covariance, cluster
from asr_kd.specialists.combine import SpecialistPosteriors, active_specialists, combine, membership
from asr_kd.specialists.specialist import SpecialClasses, SpecialistLoader, corrected_posteriors, initial_specialist
from asr_kd.train.batches import Batch


def divergences(
    q: torch.Tensor, generalist: torch.Tensor, specialists: list[SpecialistPosteriors], active: torch.Tensor
) -> torch.Tensor:
    """(N,) KL(p_g, q) + Σ KL(p_m, q), as the paper writes it, in float64."""

    def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        p = p.double()
        return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(1)

    total = kl(generalist, q)
    for specialist, rows in zip(specialists, active.T, strict=True):
        outside = torch.ones(q.shape[1], dtype=torch.bool)
        outside[specialist.classes] = False
        collapsed = torch.cat([q[:, specialist.classes], q[:, outside].sum(1, keepdim=True)], 1)
        total = total.index_add(0, rows.nonzero().squeeze(1), kl(specialist.probabilities, collapsed[rows]))
    return total


def by_descent(generalist: torch.Tensor, specialists: list[SpecialistPosteriors], active: torch.Tensor) -> torch.Tensor:
    """The minimum as the paper finds it: descent on the logits z, in float64, one example after the other.

    With second derivatives: where some classes have only the generalist's 1e-6, the divergence is so flat along their
    logits that first-order methods stop far from the minimum.
    """

    def minimum(number: int) -> torch.Tensor:
        row = slice(number, number + 1)
        earlier = active[:number].sum(0).tolist()
        own = [
            SpecialistPosteriors(specialist.classes, specialist.probabilities[start : start + int(is_active)])
            for specialist, start, is_active in zip(specialists, earlier, active[number], strict=True)
        ]

        def loss(z: torch.Tensor) -> torch.Tensor:
            return divergences(z.softmax(0)[None], generalist[row], own, active[row]).sum()

        solved = minimize(
            lambda z: loss(torch.from_numpy(z)).item(),
            np.zeros(generalist.shape[1]),
            jac=lambda z: jacobian(loss, torch.from_numpy(z)).numpy(),
            hess=lambda z: hessian(loss, torch.from_numpy(z)).numpy(),
            method="trust-exact",
            options={"gtol": 1e-10, "maxiter": 1000},
        )
        return torch.from_numpy(solved.x).softmax(0)

    return torch.stack([minimum(number) for number in range(len(generalist))])


def random_case(sets: list[list[int]], classes: int, examples: int, sharpness: float, seed: int, share=1.0):
    generator = torch.Generator().manual_seed(seed)

    def distribution(width: int) -> torch.Tensor:
        return (sharpness * torch.randn(examples, width, generator=generator)).softmax(1)

    active = torch.rand(examples, len(sets), generator=generator) < share
    specialists = [
        SpecialistPosteriors(torch.tensor(s), distribution(len(s) + 1)[rows])
        for s, rows in zip(sets, active.T, strict=True)
    ]
    return distribution(classes), specialists, active


@pytest.mark.parametrize("sets", [[[0, 1, 2], [4, 5], [7]], [[0, 1, 2], [2, 3, 4], [0, 4, 9]], [[3]], []])
@settings(max_examples=5, deadline=None)
@given(sharpness=st.floats(0.1, 3), seed=st.integers(0, 1000))
@example(sharpness=3.0, seed=1)
def test_combined_distribution_is_the_minimum(sets: list[list[int]], sharpness: float, seed: int) -> None:
    case = random_case(sets, 10, 6, sharpness, seed, share=0.7)
    found = combine(*case, tolerance=1e-8)
    expected = by_descent(*case)
    torch.testing.assert_close(found.probabilities.double(), expected, atol=2e-6, rtol=0)
    assert (divergences(found.probabilities.double(), *case) - divergences(expected, *case)).max() < 1e-5
    assert found.gap.max() < 1e-7


@settings(max_examples=10, deadline=None)
@given(sharpness=st.floats(1, 12), seed=st.integers(0, 1000))
def test_contradicting_specialists_that_share_classes_are_solved(sharpness: float, seed: int) -> None:
    """Where EM alone would need thousands of steps: confident posteriors that exclude each other."""
    generator = torch.Generator().manual_seed(seed)
    sets = [torch.randperm(40, generator=generator)[:12].tolist() for _ in range(8)]
    found = combine(*random_case(sets, 40, 64, sharpness, seed))
    assert found.gap.max() < 1e-6
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(64))


def test_one_specialist_has_a_closed_form() -> None:
    generalist, specialists, _ = random_case([[0, 1, 2]], 8, 50, 2.0, 1)
    found = combine(generalist, specialists, torch.ones(50, 1, dtype=torch.bool), tolerance=1e-9)
    assert found.steps == 0
    posteriors = specialists[0].probabilities
    others = (generalist[:, 3:].sum(1, keepdim=True) + posteriors[:, 3:]) / 2
    torch.testing.assert_close(found.probabilities[:, :3], (generalist[:, :3] + posteriors[:, :3]) / 2)
    expected = others * generalist[:, 3:] / generalist[:, 3:].sum(1, keepdim=True)
    torch.testing.assert_close(found.probabilities[:, 3:], expected)


def test_no_or_agreeing_specialists_leave_the_generalist() -> None:
    generalist, specialists, active = random_case([[0, 1], [2, 3]], 6, 20, 2.0, 2)
    inactive = [SpecialistPosteriors(s.classes, s.probabilities[:0]) for s in specialists]
    alone = combine(generalist, inactive, torch.zeros_like(active))
    torch.testing.assert_close(alone.probabilities, generalist)
    insides = [generalist[:, s.classes] for s in specialists]
    posteriors = [torch.cat([inside, 1 - inside.sum(1, keepdim=True)], 1) for inside in insides]
    agreeing = [SpecialistPosteriors(s.classes, p) for s, p in zip(specialists, posteriors, strict=True)]
    combined = combine(generalist, agreeing, torch.ones_like(active), tolerance=1e-9)
    torch.testing.assert_close(combined.probabilities, generalist, atol=1e-5, rtol=0)


def test_one_hot_posteriors_stay_finite() -> None:
    generalist = torch.tensor([[1.0, 0, 0, 0]])
    specialists = [
        SpecialistPosteriors(torch.tensor([1, 2]), torch.tensor([[1.0, 0, 0]])),
        SpecialistPosteriors(torch.tensor([3]), torch.tensor([[0.0, 1]])),
    ]
    found = combine(generalist, specialists, torch.tensor([[True, True]]))
    torch.testing.assert_close(found.probabilities[0, :2], torch.tensor([0.5, 0.5]), atol=1e-4, rtol=0)
    assert torch.isfinite(found.probabilities).all()


def test_invalid_posteriors_are_refused() -> None:
    generalist = torch.full((2, 4), 0.25)
    active = torch.ones(2, 1, dtype=torch.bool)
    valid = SpecialistPosteriors(torch.tensor([1]), torch.full((2, 2), 0.5))
    for classes, probabilities, message in (
        ([1], torch.full((2, 2), 0.7), "specialist 0's .* sum to one"),
        ([1], torch.full((2, 2), torch.nan), "finite"),
        ([4], torch.full((2, 2), 0.5), "between 0 and 3"),
        ([1], torch.full((2, 3), 1 / 3), r"not \(2, 2\)"),
        ([0, 1, 2, 3], torch.full((2, 5), 0.2), "empty dustbin"),
    ):
        with pytest.raises(ValueError, match=message):
            combine(generalist, [SpecialistPosteriors(torch.tensor(classes), probabilities)], active)
    with pytest.raises(ValueError, match="the generalist's probabilities must sum to one"):
        combine(generalist * 2, [valid], active)
    with pytest.raises(ValueError, match="active has shape"):
        combine(generalist, [valid], active[:, :0])
    with pytest.raises(ValueError, match="between 0 and 3"):
        membership([[]], 4)


def test_specialists_of_the_top_k_classes_are_active() -> None:
    members = membership([[0, 1], [2], [1, 3]], 5)
    generalist = torch.tensor([[0.1, 0.5, 0.2, 0.15, 0.05], [0.0, 0.1, 0.2, 0.1, 0.6]])
    assert active_specialists(generalist, members).tolist() == [[True, False, True], [False, False, False]]
    assert active_specialists(generalist, members, 2).tolist() == [[True, True, True], [False, True, False]]


def test_streamed_covariance_is_the_covariance() -> None:
    posteriors = torch.randn(1000, 7).softmax(1)
    streamed = Covariance(7)
    for batch in posteriors.split(130):
        streamed.add(batch)
    np.testing.assert_allclose(streamed.matrix(), np.cov(posteriors.double().numpy().T, bias=True), atol=1e-7)
    with pytest.raises(ValueError, match="no predictions"):
        Covariance(3).matrix()


@pytest.mark.parametrize("method", ["kmeans", "spectral", "agglomerative"])
@pytest.mark.parametrize("kind", ["covariance", "confusions"])
def test_classes_that_are_confused_share_a_cluster(method, kind) -> None:
    generator = torch.Generator().manual_seed(0)
    group = torch.arange(30) % 5  # classes i and j are similar if i = j modulo 5
    labels = torch.randint(30, (6000,), generator=generator)
    logits = torch.randn(6000, 30, generator=generator) + 4 * (group[labels, None] == group)
    logits[torch.arange(6000), labels] += 2
    statistics = Covariance(30) if kind == "covariance" else Confusions(30)
    for batch, batch_labels in zip(logits.split(1000), labels.split(1000), strict=True):
        statistics.add(batch.softmax(1), *([] if kind == "covariance" else [batch_labels]))
    groups = cluster(statistics.matrix(), 5, method)
    assert sorted(tuple(g.tolist()) for g in groups) == [tuple(range(i, 30, 5)) for i in range(5)]


def test_specialists_of_equal_size_may_share_classes() -> None:
    similarity = np.eye(12) + 0.5 * (np.arange(12)[:, None] // 4 == np.arange(12) // 4)
    similarity[3, 4] = similarity[4, 3] = 0.4
    assert [g.tolist() for g in cluster(similarity, 3, "agglomerative", size=4)] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11],
    ]  # fmt: skip
    larger = [group.tolist() for group in cluster(similarity, 3, "agglomerative", size=5)]
    assert [len(group) for group in larger] == [5, 5, 5]
    assert [0, 1, 2, 3, 4] in larger and [3, 4, 5, 6, 7] in larger
    with pytest.raises(UserError, match="--size 1 to 11"):
        cluster(similarity, 3, size=12)


def test_invalid_numbers_of_clusters_are_refused() -> None:
    for count in (0, 1, 11):
        with pytest.raises(UserError, match="give 2 to 10"):
            cluster(np.eye(10), count)


def test_half_of_a_specialists_examples_are_special() -> None:
    labels = np.repeat(np.arange(10), 100)
    special = SpecialClasses(np.array([7, 2]), np.bincount(labels))
    chosen = special(labels, np.random.default_rng(0))
    assert len(chosen) == len(set(chosen)) == 400 == special.fraction * 1000
    assert np.isin(labels[chosen], [2, 7]).sum() == 200
    assert special.local_labels(torch.tensor([2, 7, 3])).tolist() == [0, 1, 2]
    assert special.correction == pytest.approx(math.log(4))
    large = SpecialClasses(np.arange(8), np.bincount(labels))
    assert large.correction == 0 and large.fraction == 1
    for classes, counts in (([], [1, 1]), ([0, 1], [1, 1]), ([0], [0, 5]), ([0], [5, 0])):
        with pytest.raises(UserError, match="choose other classes"):
            SpecialClasses(np.array(classes, dtype=int), np.array(counts))


def test_the_corrected_dustbin_has_its_true_prior() -> None:
    """A specialist that has only learnt the frequencies of classes gives the true priors after the correction."""
    counts = np.array([10, 30, 60, 900])
    special = SpecialClasses(np.array([0, 1]), counts)
    learnt = torch.tensor([[10.0, 30, 40]]).log()  # its examples: 40 special ones, 40 of 960 others
    torch.testing.assert_close(corrected_posteriors(learnt, special.correction), torch.tensor([[0.01, 0.03, 0.96]]))
    collapsed = special.collapse(torch.from_numpy(counts / 1000)[None].float())
    torch.testing.assert_close(collapsed, torch.tensor([[10.0, 30, 40]]) / 80)
    full = SpecialClasses(np.array([0, 1]), counts, full=True)
    seen = torch.tensor([[10.0, 30, 2.5, 37.5]])
    torch.testing.assert_close(full.collapse(torch.from_numpy(counts / 1000)[None].float()), seen / 80)
    posteriors = corrected_posteriors(seen.log(), full.correction, torch.from_numpy(full.classes))
    torch.testing.assert_close(posteriors, torch.tensor([[0.01, 0.03, 0.96]]))
    assert full.local_labels(torch.tensor([3, 1])).tolist() == [3, 1]


def test_a_specialist_starts_as_its_generalist() -> None:
    torch.manual_seed(0)
    generalist = dnn(6, 12, layers=2, width=16, left=0, right=0, dropout=0.0).build().eval()
    torch.nn.init.normal_(generalist.output.weight)
    special = SpecialClasses(np.array([3, 8, 9]), np.full(12, 50))
    model = initial_specialist(generalist, special).eval()
    inputs = torch.randn(20, 6)
    logits = generalist.forward_windows(inputs)
    torch.testing.assert_close(model.forward_windows(inputs)[:, :3], logits[:, special.classes])
    others = np.setdiff1d(np.arange(12), special.classes)
    torch.testing.assert_close(model.forward_windows(inputs)[:, 3], logits[:, others].mean(1) + math.log(9))

    same = initial_specialist(generalist, SpecialClasses(special.classes, np.full(12, 50), full=True)).eval()
    torch.testing.assert_close(same.forward_windows(inputs), logits)

    class OneBatch:
        def __len__(self) -> int:
            return 1

        def epoch(self, seed: int):
            yield Batch(inputs, torch.arange(20) % 12, None)

    (batch,) = SpecialistLoader(OneBatch(), special, generalist).epoch(0)
    assert batch.labels.tolist() == [{3: 0, 8: 1, 9: 2}.get(i % 12, 3) for i in range(20)]
    torch.testing.assert_close(batch.soft, special.collapse(logits.softmax(1)))
