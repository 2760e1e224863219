"""What every kernel of the loss must do: the values and gradients of the plain form in float64."""

import math

import pytest
import torch
from loss_examples import example, generator_of, gradient, reference

from asr_kd.losses import CompactTargets, average_distributions, frame_kd_loss, linear_kd_loss

KINDS = ["dense", "logits", "even", "prior", "none"]


def targets_of(kind, teacher, temperature):
    """Soft targets of a kind, whose second frame keeps fewer classes, and the keywords of the loss for them."""
    if kind == "logits":
        return teacher.float(), {"soft_kind": "logits"}
    soft = average_distributions([teacher, teacher.flip(0)], temperature)
    if kind == "dense":
        return soft.float(), {}
    prior = torch.arange(1.0, soft.shape[1] + 1, dtype=torch.float64)
    compact = CompactTargets.top(soft, 3, kind, prior / prior.sum() if kind == "prior" else None)
    compact.probabilities[1, 2] = 0
    compact.classes[1, 2] = compact.classes[1, 0]
    return compact, {}


def compare(logits, targets, labels, tolerance=1e-5, dtype=torch.float32, **keywords):
    """Compare the kernel's values and gradient with those of the plain form in float64."""
    given = logits.to(dtype)
    expected, slope = gradient(given.double(), targets, labels, lean=False, **keywords)
    found, found_slope = gradient(given, targets, labels, lean=True, **keywords)
    assert found_slope.dtype == dtype
    assert [p.item() for p in found] == pytest.approx([p.item() for p in expected], rel=1e-5, abs=1e-5)
    torch.testing.assert_close(found_slope.double(), slope, atol=tolerance, rtol=tolerance)
    with torch.no_grad():
        total = frame_kd_loss(given, targets, labels, lean=True, **keywords).total
    assert total.item() == pytest.approx(expected.total.item(), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 3.7])
@pytest.mark.parametrize("labelled", ["all", "some", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_plain(kind, labelled, temperature):
    logits, teacher, labels = example(9, frames=5, classes=37)
    labels[1::2] = -100 if labelled == "some" else 3
    targets, keywords = targets_of(kind, teacher, temperature)
    given = None if labelled == "none" else labels
    compare(logits, targets, given, temperature=temperature, hard_weight=0.3, **keywords)


@pytest.mark.parametrize("classes", [2, 16, 17, 500])
def test_matches_the_definition(classes):
    logits, teacher, labels = example(2, frames=3, classes=classes)
    soft = average_distributions([teacher], 2.0)
    found = frame_kd_loss(logits.float(), soft.float(), labels, temperature=2.0)
    assert [part.item() for part in found] == pytest.approx(reference(logits, soft, labels, 2.0, 0.5), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_that_count(kind):
    logits, teacher, labels = example(5, frames=8, classes=37)
    labels[3] = -100
    targets, keywords = targets_of(kind, teacher, 2.0)
    mask = torch.tensor([True, True, False, True, True, False, True, True])
    weights = torch.rand(8, generator=generator_of(0), dtype=torch.float64)
    logits[2] = math.nan
    compare(logits, targets, labels, temperature=2.0, mask=mask, weights=weights, **keywords)


@pytest.mark.parametrize("kind", ["logits", "dense", "none"])
def test_classes_that_both_exclude_do_not_exist(kind):
    logits, teacher, labels = example(18, frames=3, classes=40)
    labels %= 6
    first, keywords = targets_of(kind, teacher[:, :6], 2.0)
    expected, expected_slope = gradient(logits[:, :6].float(), first, labels, temperature=2.0, lean=False, **keywords)
    logits[:, 6:] = teacher[:, 6:] = -math.inf  # two whole blocks too
    found, slope = gradient(logits.float(), targets_of(kind, teacher, 2.0)[0], labels, temperature=2.0, **keywords)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))
    torch.testing.assert_close(slope[:, :6], expected_slope, atol=1e-6, rtol=1e-5)
    assert (slope[:, 6:] == 0).all()
    one = torch.zeros(3, 40).index_fill_(1, torch.tensor(8), 1.0)
    assert gradient(logits.float(), one)[0].soft > 1e30  # a class that the student alone excludes


@pytest.mark.parametrize("first", [-math.inf, -1e4])
def test_extreme_values(first):
    logits, teacher, _ = example(3, frames=2, classes=40)
    logits[:, :20] = first
    logits[:, 30] = 1e4
    teacher[:, :20] = -math.inf
    teacher = teacher.float()
    compare(logits, teacher, torch.tensor([30, 31]), temperature=2.0, soft_kind="logits")
    logits[0, 35] = math.nan
    assert frame_kd_loss(logits.float(), teacher, soft_kind="logits").total.isnan()


def test_output_layer():
    _, teacher, labels = example(13, frames=10, classes=37)
    inputs, weight = torch.randn(10, 5), torch.randn(37, 5, requires_grad=True)
    arguments = (CompactTargets.top(teacher.softmax(1), 3), labels)
    whole = frame_kd_loss(inputs @ weight.T, *arguments, lean=False)
    parts = linear_kd_loss(inputs, weight, None, *arguments, chunk_frames=4)
    torch.testing.assert_close(torch.stack(parts), torch.stack(whole))
    expected, found = (torch.autograd.grad(x.total, weight)[0] for x in (whole, parts))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
