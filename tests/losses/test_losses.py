"""The distillation losses against a float64 reference, the paper's equations and their own invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_examples import TEMPERATURES, both_forms, example, gradient, reference
from torch.nn import functional as F

from asr_kd.losses import (
    CompactTargets,
    FrameKDLoss,
    average_distributions,
    frame_kd_loss,
    logit_matching_loss,
)


@both_forms
@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.one_of(st.sampled_from(TEMPERATURES), st.floats(0.3, 40.0)),
    hard_weight=st.floats(0.0, 1.0),
    frames=st.integers(1, 8),
    classes=st.integers(2, 30),
    kind=st.sampled_from(["probabilities", "logits", "compact"]),
)
def test_matches_float64_reference(form, seed, temperature, hard_weight, frames, classes, kind):
    logits, teacher, labels = example(seed, frames, classes)
    soft = average_distributions([teacher], temperature)
    expected = reference(logits, soft, labels, temperature, hard_weight)
    given, keywords = soft, {}
    if kind == "logits":
        given, keywords = teacher, {"soft_kind": "logits"}
    elif kind == "compact":
        given = CompactTargets.top(soft, classes)
    loss = frame_kd_loss(logits, given, labels, temperature=temperature, hard_weight=hard_weight, lean=form, **keywords)
    assert [part.item() for part in loss] == pytest.approx(expected, abs=1e-10, rel=1e-10)


@both_forms
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_gradient_is_equation_2(form, temperature):
    logits, teacher, labels = example(1)
    soft = average_distributions([teacher], temperature)
    _, found = gradient(logits, soft, temperature=temperature, lean=form)
    expected = temperature**2 * (torch.softmax(logits / temperature, 1) - soft) / temperature / len(logits)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)
    _, found = gradient(logits, soft, labels, temperature=temperature, hard_weight=0.3, lean=form)
    hard = (torch.softmax(logits, 1) - F.one_hot(labels, 9)) / len(logits)
    torch.testing.assert_close(found, 0.7 * expected + 0.3 * hard, atol=1e-12, rtol=1e-10)


@both_forms
def test_high_temperature_is_logit_matching(form):
    """Equation 4: the gradient times T² tends to (z_i − v_i) / C for logits of zero mean."""
    logits, teacher, _ = example(2)
    _, found = gradient(logits, teacher, soft_kind="logits", temperature=1e5, lean=form)
    matching, expected = gradient(logits, teacher, loss=logit_matching_loss)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    centred = logits - logits.mean(1, keepdim=True) - teacher + teacher.mean(1, keepdim=True)
    torch.testing.assert_close(expected, centred / 9 / len(logits))
    assert matching.item() == pytest.approx(0.5 * centred.square().mean().item())


@both_forms
def test_gradient_keeps_its_scale_as_temperature_grows(form):
    logits, teacher, _ = example(3, frames=50)
    norms = [
        gradient(logits, teacher, soft_kind="logits", temperature=t, lean=form)[1].norm().item()
        for t in (20.0, 100.0, 1000.0)
    ]
    assert max(norms) < 1.1 * min(norms)


@both_forms
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_equality_is_zero_and_the_minimum(form, temperature):
    logits, teacher, _ = example(4)
    same, found = gradient(logits, logits, soft_kind="logits", temperature=temperature, lean=form)
    assert abs(same.kl.item()) < 1e-12
    assert found.abs().max() < 1e-12
    for step in (0.01, 1.0):
        moved = frame_kd_loss(logits + step * teacher, logits, soft_kind="logits", temperature=temperature, lean=form)
        assert moved.kl > 0
        assert moved.total > same.total


@both_forms
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("tail", [None, "even", "bucket"])
def test_extreme_values_stay_finite(form, dtype, temperature, tail):
    logits = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0], [-1e4, -1e4, -1e4]], dtype=dtype).requires_grad_()
    soft = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    targets = CompactTargets.top(soft, 2, tail) if tail else soft
    loss = frame_kd_loss(logits, targets, torch.tensor([0, 2, 1]), temperature=temperature, lean=form)
    loss.total.backward()
    assert all(torch.isfinite(part) for part in loss)
    assert torch.isfinite(logits.grad).all()


def test_module_is_the_function():
    logits, teacher, labels = example(16)
    module = FrameKDLoss(temperature=2.0, hard_weight=0.25)
    expected = frame_kd_loss(logits, teacher, labels, temperature=2.0, hard_weight=0.25, soft_kind="logits")
    assert module(logits, teacher, labels, soft_kind="logits") == expected
    assert repr(module) == "FrameKDLoss(temperature=2, hard_weight=0.25)"


def test_mean_of_distributions():
    logits, teacher, _ = example(17)
    arithmetic = average_distributions([logits, teacher], 2.0)
    torch.testing.assert_close(arithmetic, (torch.softmax(logits / 2, 1) + torch.softmax(teacher / 2, 1)) / 2)
    geometric = average_distributions([logits, teacher], 2.0, "geometric")
    product = (torch.softmax(logits / 2, 1) * torch.softmax(teacher / 2, 1)).sqrt()
    torch.testing.assert_close(geometric, product / product.sum(1, keepdim=True))


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"hard_weight": 1.5},
        {"labels": torch.zeros(3, dtype=torch.long)},
        {"mask": torch.ones(3, dtype=torch.bool)},
        {"weights": torch.ones(3)},
        {"lengths": torch.ones(2)},
        {"soft_targets": torch.zeros(2, 4)},
        {"soft_targets": CompactTargets(torch.zeros(3, 2, dtype=torch.long), torch.zeros(3, 2))},
        {"soft_targets": CompactTargets(torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 1))},
    ],
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError):
        frame_kd_loss(torch.zeros(2, 3), **{"soft_targets": torch.full((2, 3), 1 / 3), **arguments})
    with pytest.raises(ValueError):
        logit_matching_loss(torch.zeros(2, 3), torch.zeros(2, 4))
