"""Which frames count in which part of the loss: labels, masks, lengths, weights, micro-batches."""

import math

import pytest
import torch
from loss_examples import both_forms, example, gradient, reference

from asr_kd.losses import CompactTargets, average_distributions, frame_kd_loss, linear_kd_loss


@both_forms
@pytest.mark.parametrize("compact", [False, True])
def test_padding_and_batching_never_change_the_value(form, compact):
    logits, teacher, labels = example(5, frames=8)
    soft = average_distributions([teacher], 2.0)
    shape = (lambda q: CompactTargets.top(q, 4)) if compact else (lambda q: q)
    plain, expected = gradient(logits, shape(soft), labels, temperature=2.0, lean=form)
    # Two sequences of five and three frames, padded to six with rubbish.
    place = torch.tensor([0, 1, 2, 3, 4, 6, 7, 8])
    padded_logits = torch.full((12, 9), math.nan, dtype=torch.float64)
    padded_soft = torch.full((12, 9), 1 / 9, dtype=torch.float64)
    padded_labels = torch.full((12,), -100)
    for whole, part in ((padded_logits, logits), (padded_soft, soft), (padded_labels, labels)):
        whole[place] = part
    padded_logits, padded_soft, padded_labels = (
        t.view(2, 6, *t.shape[1:]) for t in (padded_logits, padded_soft, padded_labels)
    )
    known = padded_labels.clamp(min=0)
    for arguments in (
        {"labels": padded_labels, "mask": padded_labels >= 0},
        {"labels": known, "lengths": torch.tensor([5, 3])},
        {"labels": known, "weights": 1.0 * (padded_labels >= 0)},
    ):
        padded, found = gradient(padded_logits, shape(padded_soft), temperature=2.0, lean=form, **arguments)
        for a, b in zip(plain, padded, strict=True):
            assert a.item() == pytest.approx(b.item(), abs=1e-12)
        torch.testing.assert_close(found.view(12, 9)[place], expected)
        assert found.view(12, 9)[[5, 9, 10, 11]].abs().max() == 0


@both_forms
def test_weights_count_frames(form):
    logits, teacher, labels = example(6)
    times = torch.tensor([1, 3, 2, 1, 4, 1])
    repeated = [t.repeat_interleave(times, 0) for t in (logits, teacher, labels)]
    keywords = {"soft_kind": "logits", "temperature": 2.0, "lean": form}
    weighted = frame_kd_loss(logits, teacher, labels, weights=0.1 * times.double(), **keywords)
    counted = frame_kd_loss(*repeated, **keywords)
    for a, b in zip(weighted[:4], counted[:4], strict=True):
        assert a.item() == pytest.approx(b.item(), abs=1e-12)
    assert weighted.weight.item() == pytest.approx(1.2) and counted.weight.item() == 12


@both_forms
def test_no_frame_that_counts_is_zero(form):
    logits, teacher, labels = example(8)
    loss, found = gradient(logits, teacher, labels, soft_kind="logits", lean=form, mask=labels < 0)
    assert [part.item() for part in loss] == [0] * 6
    assert found.abs().max() == 0


@both_forms
def test_no_frames_at_all(form):
    logits = torch.randn(0, 9, requires_grad=True)
    parts = frame_kd_loss(logits, torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64), temperature=2.0, lean=form)
    assert [part.item() for part in parts] == [0] * 6
    parts.total.backward()
    assert logits.grad.shape == (0, 9)


def partly_labelled(seed, frames=11):
    """Student and teacher logits, labels of which some are missing, weights, and a mask that leaves out some frames of
    either kind."""
    logits, teacher, labels = example(seed, frames)
    generator = torch.Generator().manual_seed(seed)
    labels[torch.randperm(frames, generator=generator)[: frames // 2]] = -100
    weights = torch.rand(frames, generator=generator, dtype=torch.float64)
    return logits, teacher, labels, weights, torch.arange(frames) % 4 > 0


@both_forms
@pytest.mark.parametrize("hard_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.7])
@pytest.mark.parametrize("kind", ["dense", "compact"])
def test_a_frame_without_label_costs_its_soft_part_alone(form, hard_weight, temperature, kind):
    logits, teacher, labels, weights, mask = partly_labelled(19)
    soft = average_distributions([teacher], temperature)
    targets = soft if kind == "dense" else CompactTargets.top(soft, 9)
    keywords = {"temperature": temperature, "hard_weight": hard_weight}
    loss, slope = gradient(logits, targets, labels, weights=weights, mask=mask, lean=form, **keywords)
    expected = reference(logits[mask], soft[mask], labels[mask], weights=weights[mask], **keywords)
    assert [part.item() for part in loss] == pytest.approx(expected, rel=1e-10)
    # Each frame by itself: its gradient is that of the soft part, or of both, by its share of the weights.
    for frame in range(len(logits)):
        here = slice(frame, frame + 1)
        label = labels[here] if labels[frame] >= 0 else None
        alone = gradient(logits[here], soft[here], label, **keywords)[1][0]
        share = weights[frame] * mask[frame] / loss.weight
        torch.testing.assert_close(slope[frame], share * alone, atol=1e-12, rtol=1e-9)


@both_forms
def test_no_label_at_all_is_as_if_there_were_none(form):
    logits, teacher, labels = example(20)
    keywords = {"soft_kind": "logits", "temperature": 2.0, "lean": form}
    loss, slope = gradient(logits, teacher, torch.full_like(labels, -100), hard_weight=0.7, **keywords)
    expected, expected_slope = gradient(logits, teacher, **keywords)
    assert loss.total.item() == pytest.approx(expected.total.item(), rel=1e-12)
    assert loss.hard.item() == loss.labelled_weight.item() == 0
    torch.testing.assert_close(slope, expected_slope)


@pytest.mark.parametrize("form", ["lean", "plain", "linear"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_micro_batches_add_up_to_the_batch(form, dtype):
    """Of unequal sizes, with frames without a label, weights and a mask."""
    _, teacher, labels, weights, mask = partly_labelled(21, frames=23)
    soft = average_distributions([teacher], 2.0)
    generator = torch.Generator().manual_seed(0)
    inputs, matrix = (torch.randn(n, 5, generator=generator, dtype=torch.float64) for n in (23, 9))
    matrix.requires_grad_()
    whole = frame_kd_loss(
        inputs @ matrix.T, soft, labels, temperature=2.0, hard_weight=0.3, weights=weights, mask=mask, lean=False
    )
    (expected,) = torch.autograd.grad(whole.total, matrix)
    leaf = matrix.detach().to(dtype).requires_grad_()
    sums = torch.zeros(6, dtype=torch.float64)
    for frames in torch.arange(23).split([1, 9, 2, 11]):
        keywords = {"temperature": 2.0, "hard_weight": 0.3, "weights": weights[frames], "mask": mask[frames]}
        given = (inputs[frames].to(dtype), leaf, None)
        if form == "linear":
            part = linear_kd_loss(*given, soft[frames], labels[frames], chunk_frames=4, **keywords)
        else:
            part = frame_kd_loss(given[0] @ leaf.T, soft[frames], labels[frames], lean=form == "lean", **keywords)
        (part.weight * part.total).backward()
        values = torch.stack(part).detach().double()
        sums += torch.cat([values[[0, 1, 3]] * part.weight, values[2:3] * part.labelled_weight, values[4:]])
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    assert sums[4:].tolist() == pytest.approx([whole.weight.item(), whole.labelled_weight.item()], rel=tolerance)
    totals = sums[:4] / torch.stack([whole.weight, whole.weight, whole.weight, whole.labelled_weight])
    expected_totals = [part.item() for part in (whole.total, whole.soft, whole.kl, whole.hard)]
    assert totals.tolist() == pytest.approx(expected_totals, rel=tolerance)
    torch.testing.assert_close((leaf.grad / sums[4]).double(), expected, atol=tolerance, rtol=tolerance)


@both_forms
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": torch.tensor([1, -1])}, "labels must lie in"),
        ({"labels": torch.tensor([1, 3])}, "labels must lie in"),
        ({"weights": torch.tensor([1.0, math.nan])}, "finite and not negative"),
        ({"weights": torch.tensor([1.0, math.inf])}, "finite and not negative"),
        ({"weights": torch.tensor([1.0, -0.5])}, "finite and not negative"),
        ({"soft": torch.full((2, 3), 1 / 3).log()}, "must be probabilities"),
        ({"soft": CompactTargets(torch.zeros(2, 1).long(), torch.full((2, 1), -2.0), "none")}, "must be probabilities"),
    ],
)
def test_values_outside_their_domain_are_refused(form, changes, message):
    arguments = {"soft": torch.full((2, 3), 1 / 3), "labels": torch.tensor([1, -100])} | changes
    logits = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.1, 0.2]], requires_grad=True)
    with pytest.raises(ValueError, match=message):
        frame_kd_loss(logits, arguments.pop("soft"), lean=form, **arguments)
