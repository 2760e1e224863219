"""Inputs as other people's training loops hand them over: dtypes, views, padding, wrong labels."""

import math

import pytest
import torch
from loss_examples import both_forms, example, gradient, reference
from torch.nn import functional as F

from asr_kd.losses import CompactTargets, average_distributions, frame_kd_loss, linear_kd_loss


@both_forms
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.int64])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 3.7])
def test_labels_of_any_whole_type(form, dtype, temperature):
    logits, teacher, labels = example(1)
    labels[2] = -100
    soft = average_distributions([teacher], temperature)
    found, slope = gradient(logits, soft, labels.to(dtype), temperature=temperature, lean=form)
    assert [part.item() for part in found] == pytest.approx(reference(logits, soft, labels, temperature, 0.5))
    torch.testing.assert_close(slope, gradient(logits, soft, labels, temperature=temperature, lean=form)[1])


def test_int32_labels_of_an_output_layer():
    inputs, weight, labels = torch.randn(2, 5, 8), torch.randn(9, 8), torch.randint(9, (2, 5), dtype=torch.int32)
    soft = torch.randn(2, 5, 9).softmax(-1)
    expected = reference((inputs @ weight.T).flatten(0, 1), soft.flatten(0, 1), labels.flatten(), 1.0, 0.5)
    assert [p.item() for p in linear_kd_loss(inputs, weight, None, soft, labels)] == pytest.approx(expected, rel=1e-5)


@both_forms
@pytest.mark.parametrize("soft_kind", ["probabilities", "logits"])
@pytest.mark.parametrize("layout", ["(B, C, T)", "(T, B, C)", "(C, N)", "every other frame", "every other class"])
def test_views_that_are_not_contiguous(form, soft_kind, layout):
    """CTC losses take (T, B, C), convolutions give (B, C, T)."""
    generator = torch.Generator().manual_seed(0)

    def view() -> torch.Tensor:
        if layout == "(C, N)":
            return torch.randn(9, 12, generator=generator).t()
        shape = {"(B, C, T)": (3, 9, 4), "(T, B, C)": (4, 3, 9), "every other frame": (3, 8, 9)}.get(layout, (3, 4, 18))
        whole = torch.randn(*shape, generator=generator)
        return {
            "(B, C, T)": whole.transpose(1, 2), "(T, B, C)": whole.transpose(0, 1), "every other frame": whole[:, ::2],
            "every other class": whole[..., ::2],
        }[layout]  # fmt: skip

    logits, teacher = view(), view()
    assert not logits.is_contiguous()
    labels = torch.randint(9, logits.shape[:-1], generator=generator, dtype=torch.int32)
    q = teacher.softmax(-1) if soft_kind == "probabilities" else teacher
    expected = reference(
        logits.reshape(-1, 9), (teacher.double() / 2).softmax(-1).reshape(-1, 9)
        if soft_kind == "logits" else q.reshape(-1, 9), labels.flatten(), 2.0, 0.5,
    )  # fmt: skip
    logits.requires_grad_()
    parts = frame_kd_loss(logits, q, labels, temperature=2.0, soft_kind=soft_kind, lean=form)
    assert [part.item() for part in parts] == pytest.approx(expected, rel=1e-5)
    (found,) = torch.autograd.grad(parts.total, logits)
    same = gradient(logits.contiguous(), q.contiguous(), labels, temperature=2.0, soft_kind=soft_kind, lean=form)[1]
    torch.testing.assert_close(found, same)


@both_forms
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("compact", [False, True])
def test_probabilities_that_sum_to_one_within_their_rounding(form, dtype, compact):
    logits, teacher, labels = example(3, frames=40, classes=60)
    soft = teacher.softmax(-1).to(dtype)
    assert (soft.double().sum(-1) - 1).abs().max() > 1e-5
    targets = CompactTargets.top(soft, 60, "none") if compact else soft
    for student in (logits, logits.to(dtype)):
        found, slope = gradient(student, targets, labels, temperature=2.0, lean=form)
        expected = reference(student, soft, labels, 2.0, 0.5)
        assert [part.item() for part in found] == pytest.approx(expected, rel=2e-5, abs=2e-5)
        p, p1 = ((student.double() / t).softmax(-1) for t in (2.0, 1.0))
        mass = soft.double().sum(-1, keepdim=True)
        equation_2 = (mass * p - soft.double()) * 2 * 0.5 + 0.5 * (p1 - F.one_hot(labels, 60))
        torch.testing.assert_close(
            slope.double() * 40, equation_2, atol=2e-2 if student.dtype == dtype else 1e-6, rtol=0
        )


@both_forms
@pytest.mark.parametrize("soft_kind", ["logits", "probabilities"])
@pytest.mark.parametrize("how", ["lengths", "mask", "weights"])
def test_teacher_rows_of_minus_infinity_where_padded(form, soft_kind, how):
    logits, teacher, labels = (t.view(2, 6, *t.shape[1:]) for t in example(4, frames=12))
    lengths = torch.tensor([6, 4], dtype=torch.int32)
    inside = torch.arange(6) < lengths.unsqueeze(1)
    teacher[~inside] = -math.inf
    q = average_distributions([teacher], 2.0) if soft_kind == "probabilities" else teacher  # NaN in the padding
    counted = {"lengths": lengths, "mask": inside, "weights": inside.double()}[how]
    more = {how: counted, "temperature": 2.0, "soft_kind": soft_kind, "lean": form}
    found, slope = gradient(logits, q, labels, **more)
    expected = reference(logits[inside], (teacher[inside] / 2).softmax(-1), labels[inside], 2.0, 0.5)
    assert [part.item() for part in found] == pytest.approx(expected)
    assert slope[~inside].abs().max() == 0 and slope.isfinite().all()


@both_forms
@pytest.mark.parametrize("label", [9, -1, -101, 40000])
def test_a_label_out_of_range_is_named(form, label):
    logits, teacher, labels = example(5)
    labels[4] = label
    with pytest.raises(ValueError, match=rf"labels must lie in \[0, 9\), or be -100 for none: {label} is neither"):
        frame_kd_loss(logits, teacher, labels.int(), soft_kind="logits", lean=form)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_labels_that_are_no_whole_numbers_are_refused(dtype):
    logits, teacher, labels = example(5)
    with pytest.raises(ValueError, match="labels must be whole numbers"):
        frame_kd_loss(logits, teacher, labels.to(dtype), soft_kind="logits")
