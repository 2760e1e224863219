"""Compact soft targets and the loss with them: the forms of the tail, and classes without probability."""

import pytest
import torch
from loss_examples import PRIOR, both_forms, example, gradient

from asr_kd.losses import CompactTargets, average_distributions, frame_kd_loss


@both_forms
@pytest.mark.parametrize("tail", ["even", "prior", "bucket", "none"])
def test_keeping_every_class_equals_dense(form, tail):
    logits, teacher, labels = example(10)
    soft = average_distributions([teacher], 2.0)
    expected, slope = gradient(logits, soft, labels, temperature=2.0)
    targets = CompactTargets.top(soft, 9, tail, PRIOR if tail == "prior" else None)
    found, compact_slope = gradient(logits, targets, labels, temperature=2.0, lean=form)
    for a, b in zip(found, expected, strict=True):
        assert a.item() == pytest.approx(b.item(), abs=1e-12)
    torch.testing.assert_close(compact_slope, slope)


def test_tail_forms():
    soft = torch.tensor([[0.5, 0.1, 0.3, 0.1], [0.7, 0.1, 0.1, 0.1]], dtype=torch.float64)
    even = CompactTargets.top(soft, 2)
    torch.testing.assert_close(even.dense(4)[0], torch.tensor([0.5, 0.1, 0.3, 0.1], dtype=torch.float64))
    torch.testing.assert_close(CompactTargets.top(soft, 2, "none").dense(4).sum(1), soft.new_tensor([0.8, 0.8]))
    prior = torch.tensor([0.1, 0.6, 0.1, 0.2], dtype=torch.float64)
    expected = torch.tensor([0.5, 0.15, 0.3, 0.05], dtype=torch.float64)
    torch.testing.assert_close(CompactTargets.top(soft, 2, "prior", prior).dense(4)[0], expected)
    for wrong in (("prior", None), ("even", prior)):
        with pytest.raises(ValueError, match="needs a prior"):
            CompactTargets.top(soft, 2, *wrong)
    with pytest.raises(ValueError, match="no dense form"):
        CompactTargets.top(soft, 2, "bucket").dense(4)
    logits = torch.randn(2, 4, dtype=torch.float64)
    p = torch.softmax(logits, 1)
    q = soft[:, [0, 2, 1, 3]]  # the kept ones are 0 and 2 in the first frame, 0 and one of the others in the second
    first = frame_kd_loss(logits[:1], CompactTargets.top(soft[:1], 2, "bucket"))
    merged_p = torch.stack([p[0, 0], p[0, 2], p[0, 1] + p[0, 3]])
    merged_q = torch.stack([q[0, 0], q[0, 1], q[0, 2] + q[0, 3]])
    assert first.kl.item() == pytest.approx((merged_q * (merged_q / merged_p).log()).sum().item())


@pytest.mark.parametrize("tail", ["even", "prior", "none", "bucket"])
def test_entropy_of_compact_targets(tail):
    soft = average_distributions([example(6)[1]], 2.0)
    compact = CompactTargets.top(soft, 3, tail, PRIOR if tail == "prior" else None)
    if tail == "bucket":
        expected = torch.cat([compact.probabilities, 1 - compact.probabilities.sum(1, keepdim=True)], 1)
    else:
        expected = compact.dense(9)
    found = compact.entropy(compact.parts(9, torch.float64))
    torch.testing.assert_close(found, torch.special.entr(expected).sum(1))


def test_an_infinite_hard_part_stays_there():
    logits = torch.randn(2, 5)
    logits[0, 1] = -torch.inf
    soft_targets = CompactTargets(torch.tensor([[0], [2]]), torch.ones(2, 1), "none")
    parts = frame_kd_loss(logits, soft_targets, torch.tensor([1, 2]))
    assert parts.hard.item() == torch.inf
    expected = -logits.log_softmax(1)[[0, 1], [0, 2]].mean().item()
    assert parts.soft.item() == pytest.approx(expected) and parts.kl.item() == pytest.approx(expected)
    without = frame_kd_loss(logits, soft_targets, torch.tensor([1, 2]), hard_weight=0.0)
    assert without.total.item() == pytest.approx(expected)


@both_forms
@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("kind", ["dense", "logits", "none", "even", "bucket"])
def test_classes_that_both_exclude_do_not_exist(form, temperature, kind):
    logits, teacher, labels = example(18)
    labels %= 6

    def targets(values):
        if kind == "logits":
            return values
        dense = average_distributions([values], temperature)
        if kind == "dense":
            return dense
        kept, classes = dense.topk(3)
        if kind == "even":  # with nothing left to spread
            kept[:] = torch.tensor([0.5, 0.25, 0.25])
        else:  # a frame that keeps fewer
            kept[0, 2], classes[0, 2] = 0, values.shape[1] - 1
        return CompactTargets(classes, kept, kind)

    keywords = {"temperature": temperature, "hard_weight": 0.3, "lean": form}
    keywords |= {"soft_kind": "logits"} if kind == "logits" else {}
    expected, expected_gradient = gradient(logits[:, :6], targets(teacher[:, :6]), labels, **keywords)
    logits[:, 6:] = teacher[:, 6:] = -torch.inf
    found, found_gradient = gradient(logits, targets(teacher), labels, **keywords)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))
    torch.testing.assert_close(found_gradient[:, :6], expected_gradient)
    assert (found_gradient[:, 6:] == 0).all()
    one = torch.zeros(6, 9).index_fill_(1, torch.tensor(8), 1.0)
    assert gradient(logits, one, lean=form)[0].soft > 1e30  # a class that the student alone excludes
