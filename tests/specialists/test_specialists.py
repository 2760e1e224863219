"""Specialists: clusters of classes, examples and dustbins, and one distribution of several opinions."""

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
from asr_kd.models.dnn import AcousticModel, Shape
from asr_kd.specialists.clusters import Confusions, Covariance, cluster
from asr_kd.specialists.combine import Opinion, active, combine, membership
from asr_kd.specialists.special import Special, SpecialistLoader, corrected, start_from
from asr_kd.train.batches import Batch


def divergences(q: torch.Tensor, general: torch.Tensor, opinions: list[Opinion], say: torch.Tensor) -> torch.Tensor:
    """(N,) KL(p_g, q) + Σ KL(p_m, q), as the paper writes it, in float64."""

    def kl(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
        p = p.double()
        return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(1)

    total = kl(general, q)
    for number, opinion in enumerate(opinions):
        outside = torch.ones(q.shape[1], dtype=torch.bool)
        outside[opinion.classes] = False
        seen = torch.cat([q[:, opinion.classes], q[:, outside].sum(1, keepdim=True)], 1)
        total = total.index_add(0, say[:, number].nonzero().squeeze(1), kl(opinion.probabilities, seen[say[:, number]]))
    return total


def by_descent(general: torch.Tensor, opinions: list[Opinion], say: torch.Tensor) -> torch.Tensor:
    """The minimum as the paper finds it: descent on the logits z, in float64, one example after the other.

    With second derivatives: where all that is known of some classes is the general net's 1e-6, the divergence
    is so flat along their logits that gradients alone stop far from the minimum.
    """

    def found(number: int) -> torch.Tensor:
        one = slice(number, number + 1)
        earlier = say[:number].sum(0).tolist()
        said = [
            Opinion(opinion.classes, opinion.probabilities[skip : skip + int(has)])
            for opinion, skip, has in zip(opinions, earlier, say[number], strict=True)
        ]

        def loss(z: torch.Tensor) -> torch.Tensor:
            return divergences(z.softmax(0)[None], general[one], said, say[one]).sum()

        solved = minimize(
            lambda z: loss(torch.from_numpy(z)).item(),
            np.zeros(general.shape[1]),
            jac=lambda z: jacobian(loss, torch.from_numpy(z)).numpy(),
            hess=lambda z: hessian(loss, torch.from_numpy(z)).numpy(),
            method="trust-exact",
            options={"gtol": 1e-10, "maxiter": 1000},
        )
        return torch.from_numpy(solved.x).softmax(0)

    return torch.stack([found(number) for number in range(len(general))])


def random_case(sets: list[list[int]], classes: int, examples: int, sharpness: float, seed: int, share=1.0):
    generator = torch.Generator().manual_seed(seed)

    def distribution(width: int) -> torch.Tensor:
        return (sharpness * torch.randn(examples, width, generator=generator)).softmax(1)

    say = torch.rand(examples, len(sets), generator=generator) < share
    opinions = [Opinion(torch.tensor(s), distribution(len(s) + 1)[say[:, m]]) for m, s in enumerate(sets)]
    return distribution(classes), opinions, say


@pytest.mark.parametrize("sets", [[[0, 1, 2], [4, 5], [7]], [[0, 1, 2], [2, 3, 4], [0, 4, 9]], [[3]], []])
@settings(max_examples=5, deadline=None)
@given(sharpness=st.floats(0.1, 3), seed=st.integers(0, 1000))
@example(sharpness=3.0, seed=1)
def test_combined_distribution_is_the_minimum(sets: list[list[int]], sharpness: float, seed: int) -> None:
    general, opinions, say = random_case(sets, 10, 6, sharpness, seed, share=0.7)
    found = combine(general, opinions, say, tolerance=1e-8)
    wanted = by_descent(general, opinions, say)
    torch.testing.assert_close(found.probabilities.double(), wanted, atol=2e-6, rtol=0)
    missed = divergences(found.probabilities.double(), general, opinions, say) - divergences(
        wanted, general, opinions, say
    )
    assert missed.max() < 1e-5
    assert found.gap.max() < 1e-7


@settings(max_examples=10, deadline=None)
@given(sharpness=st.floats(1, 12), seed=st.integers(0, 1000))
def test_contradicting_specialists_that_share_classes_are_solved(sharpness: float, seed: int) -> None:
    """Where EM alone would need thousands of steps: certain opinions that exclude each other."""
    generator = torch.Generator().manual_seed(seed)
    sets = [torch.randperm(40, generator=generator)[:12].tolist() for _ in range(8)]
    found = combine(*random_case(sets, 40, 64, sharpness, seed))
    assert found.gap.max() < 1e-6
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(64))


def test_one_specialist_has_a_closed_form() -> None:
    general, opinions, _ = random_case([[0, 1, 2]], 8, 50, 2.0, 1)
    found = combine(general, opinions, torch.ones(50, 1, dtype=torch.bool), tolerance=1e-9)
    assert found.steps == 0
    said = opinions[0].probabilities
    rest = (general[:, 3:].sum(1, keepdim=True) + said[:, 3:]) / 2
    torch.testing.assert_close(found.probabilities[:, :3], (general[:, :3] + said[:, :3]) / 2)
    wanted = rest * general[:, 3:] / general[:, 3:].sum(1, keepdim=True)
    torch.testing.assert_close(found.probabilities[:, 3:], wanted)


def test_nobody_has_a_say_and_everybody_agrees() -> None:
    general, opinions, say = random_case([[0, 1], [2, 3]], 6, 20, 2.0, 2)
    silent = [Opinion(opinion.classes, opinion.probabilities[:0]) for opinion in opinions]
    alone = combine(general, silent, torch.zeros_like(say))
    torch.testing.assert_close(alone.probabilities, general)
    insides = [general[:, opinion.classes] for opinion in opinions]
    saying = [torch.cat([inside, 1 - inside.sum(1, keepdim=True)], 1) for inside in insides]
    same = [Opinion(opinion.classes, said) for opinion, said in zip(opinions, saying, strict=True)]
    agreed = combine(general, same, torch.ones_like(say), tolerance=1e-9)
    torch.testing.assert_close(agreed.probabilities, general, atol=1e-5, rtol=0)


def test_certain_opinions_stay_finite() -> None:
    general = torch.tensor([[1.0, 0, 0, 0]])
    sure = [
        Opinion(torch.tensor([1, 2]), torch.tensor([[1.0, 0, 0]])),
        Opinion(torch.tensor([3]), torch.tensor([[0.0, 1]])),
    ]
    found = combine(general, sure, torch.tensor([[True, True]]))
    torch.testing.assert_close(found.probabilities[0, :2], torch.tensor([0.5, 0.5]), atol=1e-4, rtol=0)
    assert torch.isfinite(found.probabilities).all()


def test_opinions_that_make_no_sense_are_refused() -> None:
    general = torch.full((2, 4), 0.25)
    say = torch.ones(2, 1, dtype=torch.bool)
    fine = Opinion(torch.tensor([1]), torch.full((2, 2), 0.5))
    for wrong, message in (
        ((general * 2, [fine], say), "the generalist's probabilities must sum to one"),
        ((general, [Opinion(torch.tensor([1]), torch.full((2, 2), 0.7))], say), "specialist 0's .* sum to one"),
        ((general, [Opinion(torch.tensor([1]), torch.full((2, 2), torch.nan))], say), "finite"),
        ((general, [Opinion(torch.tensor([4]), torch.full((2, 2), 0.5))], say), "some of 0 to 3"),
        ((general, [Opinion(torch.tensor([1]), torch.full((2, 3), 1 / 3))], say), r"not \(2, 2\)"),
        ((general, [Opinion(torch.arange(4), torch.full((2, 5), 0.2))], say), "nothing in its dustbin"),
        ((general, [fine], say[:, :0]), "have_a_say"),
    ):
        with pytest.raises(ValueError, match=message):
            combine(*wrong)
    with pytest.raises(ValueError, match="some of 0 to 3"):
        membership([[]], 4)


def test_specialists_of_likely_classes_have_a_say() -> None:
    members = membership([[0, 1], [2], [1, 3]], 5)
    general = torch.tensor([[0.1, 0.5, 0.2, 0.15, 0.05], [0.0, 0.1, 0.2, 0.1, 0.6]])
    assert active(general, members).tolist() == [[True, False, True], [False, False, False]]
    assert active(general, members, 2).tolist() == [[True, True, True], [False, True, False]]


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
    group = torch.arange(30) % 5  # classes i and j are alike when i = j modulo 5
    labels = torch.randint(30, (6000,), generator=generator)
    logits = torch.randn(6000, 30, generator=generator) + 4 * (group[labels, None] == group)
    logits[torch.arange(6000), labels] += 2
    counted = Covariance(30) if kind == "covariance" else Confusions(30)
    for part in range(0, 6000, 1000):
        posteriors = logits[part : part + 1000].softmax(1)
        counted.add(posteriors) if kind == "covariance" else counted.add(posteriors, labels[part : part + 1000])
    groups = cluster(counted.matrix(), 5, method)
    assert sorted(tuple(g.tolist()) for g in groups) == [tuple(range(i, 30, 5)) for i in range(5)]


def test_specialists_of_one_size_may_share_classes() -> None:
    likeness = np.eye(12) + 0.5 * (np.arange(12)[:, None] // 4 == np.arange(12) // 4)
    likeness[3, 4] = likeness[4, 3] = 0.4
    assert [g.tolist() for g in cluster(likeness, 3, "agglomerative", size=4)] == [
        [0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11],
    ]  # fmt: skip
    larger = [group.tolist() for group in cluster(likeness, 3, "agglomerative", size=5)]
    assert [len(group) for group in larger] == [5, 5, 5]
    assert [0, 1, 2, 3, 4] in larger and [3, 4, 5, 6, 7] in larger
    with pytest.raises(UserError, match="--size 1 to 11"):
        cluster(likeness, 3, size=12)


def test_impossible_numbers_of_clusters_are_refused() -> None:
    for count in (0, 1, 11):
        with pytest.raises(UserError, match="give 2 to 10"):
            cluster(np.eye(10), count)


def test_half_of_a_specialists_examples_are_special() -> None:
    labels = np.repeat(np.arange(10), 100)
    special = Special(np.array([7, 2]), np.bincount(labels))
    chosen = special(labels, np.random.default_rng(0))
    assert len(chosen) == len(set(chosen)) == 400 == special.kept * 1000
    assert np.isin(labels[chosen], [2, 7]).sum() == 200
    assert special.local(torch.tensor([2, 7, 3])).tolist() == [0, 1, 2]
    assert special.correction == pytest.approx(math.log(4))
    most = Special(np.arange(8), np.bincount(labels))
    assert most.correction == 0 and most.kept == 1
    for classes, counts in (([], [1, 1]), ([0, 1], [1, 1]), ([0], [0, 5]), ([0], [5, 0])):
        with pytest.raises(UserError, match="choose its classes anew"):
            Special(np.array(classes, dtype=int), np.array(counts))


def test_the_corrected_dustbin_has_its_true_share() -> None:
    """A specialist that learnt nothing but how often classes come says the true priors after the correction."""
    counts = np.array([10, 30, 60, 900])
    special = Special(np.array([0, 1]), counts)
    learnt = torch.tensor([[10.0, 30, 40]]).log()  # what it saw: 40 special examples, 40 of 960 others
    torch.testing.assert_close(corrected(learnt, special.correction), torch.tensor([[0.01, 0.03, 0.96]]))
    collapsed = special.collapse(torch.from_numpy(counts / 1000)[None].float())
    torch.testing.assert_close(collapsed, torch.tensor([[10.0, 30, 40]]) / 80)
    full = Special(np.array([0, 1]), counts, full=True)
    seen = torch.tensor([[10.0, 30, 2.5, 37.5]])
    torch.testing.assert_close(full.collapse(torch.from_numpy(counts / 1000)[None].float()), seen / 80)
    said = corrected(seen.log(), full.correction, torch.from_numpy(full.classes))
    torch.testing.assert_close(said, torch.tensor([[0.01, 0.03, 0.96]]))
    assert full.local(torch.tensor([3, 1])).tolist() == [3, 1]


def test_a_specialist_starts_as_its_generalist() -> None:
    torch.manual_seed(0)
    generalist = AcousticModel(Shape(2, 16, 12, 0, 0, 6, dropout=0.0)).eval()
    torch.nn.init.normal_(generalist.output.weight)
    special = Special(np.array([3, 8, 9]), np.full(12, 50))
    model = start_from(generalist, special).eval()
    inputs = torch.randn(20, 6)
    logits = generalist(inputs)
    torch.testing.assert_close(model(inputs)[:, :3], logits[:, special.classes])
    others = np.setdiff1d(np.arange(12), special.classes)
    torch.testing.assert_close(model(inputs)[:, 3], logits[:, others].mean(1) + math.log(9))

    same = start_from(generalist, Special(special.classes, np.full(12, 50), full=True)).eval()
    torch.testing.assert_close(same(inputs), logits)

    class Whole:
        def __len__(self) -> int:
            return 1

        def epoch(self, seed: int):
            yield Batch(inputs, torch.arange(20) % 12, None)

    (batch,) = SpecialistLoader(Whole(), special, generalist).epoch(0)
    assert batch.labels.tolist() == [{3: 0, 8: 1, 9: 2}.get(i % 12, 3) for i in range(20)]
    torch.testing.assert_close(batch.soft, special.collapse(logits.softmax(1)))
