"""The lean forms of the loss against the plain one, and what torch can do with each."""

import pytest
import torch
from loss_examples import PRIOR, TEMPERATURES, both_forms, example, gradient
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from asr_kd.losses import CompactTargets, average_distributions, frame_kd_loss, linear_kd_loss


def test_float16_gradients_survive_many_frames():
    """One frame's share of the mean of 20,000 is below float16; the caller's loss scale must come first."""
    logits, teacher, labels = (t.repeat(3000, *[1] * (t.dim() - 1)) for t in example(7))
    keywords = {"soft_kind": "logits", "temperature": 2.0, "lean": True}
    _, expected = gradient(logits, teacher, labels, **keywords)
    half = logits.half().requires_grad_()
    (frame_kd_loss(half, teacher, labels, **keywords).total * 2.0**14).backward()
    torch.testing.assert_close(half.grad.double() / 2.0**14, expected, atol=1e-7, rtol=1e-2)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("kind", ["even", "prior", "none", "bucket", "dense", "logits"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_lean_equals_plain(temperature, labelled, kind, dtype):
    logits, teacher, labels = example(9, frames=7)
    soft = average_distributions([teacher, teacher.flip(0)], temperature)
    keywords = {"temperature": temperature, "hard_weight": 0.3}
    if kind == "dense":
        targets = soft
    elif kind == "logits":
        targets, keywords["soft_kind"] = teacher, "logits"
    else:
        targets = CompactTargets.top(soft, 3, kind, PRIOR if kind == "prior" else None)
        targets.probabilities[1, 2] = 0.0  # a frame that keeps fewer
    arguments = (targets, labels if labelled else None)
    value, expected = gradient(logits, *arguments, lean=False, **keywords)
    found, slope = gradient(logits.to(dtype), *arguments, lean=True, **keywords)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    for a, b in zip(found, value, strict=True):
        assert a.item() == pytest.approx(b.item(), rel=tolerance, abs=tolerance)
    torch.testing.assert_close(slope.double(), expected, atol=tolerance, rtol=tolerance)
    with torch.no_grad():
        assert frame_kd_loss(logits, *arguments, lean=True, **keywords).total.item() == pytest.approx(value[0].item())


@pytest.mark.parametrize("tail", ["even", "bucket", "none", "dense"])
def test_plain_form_has_higher_derivatives(tail):
    logits, teacher, labels = example(11, frames=3)
    soft = average_distributions([teacher], 2.0)
    targets = soft if tail == "dense" else CompactTargets.top(soft, 4, tail)

    def total(z):
        return frame_kd_loss(z, targets, labels, temperature=2.0, lean=False).total

    assert torch.autograd.gradcheck(total, logits.requires_grad_())
    assert torch.autograd.gradgradcheck(total, logits)
    torch.testing.assert_close(torch.func.grad(total)(logits), torch.autograd.grad(total(logits), logits)[0])


def test_lean_form_says_what_it_cannot_do():
    logits, teacher, _ = example(12)
    logits.requires_grad_()
    total = frame_kd_loss(logits, teacher, soft_kind="logits", lean=True).total
    with pytest.raises(RuntimeError, match="only once"):
        torch.autograd.grad(total, logits, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.func.grad(lambda z: frame_kd_loss(z, teacher, soft_kind="logits", lean=True).total)(logits.detach())
    scaled = 2 * frame_kd_loss(logits, teacher, soft_kind="logits", lean=True).total
    scaled.backward(retain_graph=True)
    with pytest.raises(RuntimeError):  # never a gradient scaled twice
        scaled.backward()


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("tail", ["even", "bucket"])
def test_linear_equals_linear_then_loss(temperature, labelled, bias, tail):
    _, teacher, labels = example(13, frames=10)
    targets = CompactTargets.top(average_distributions([teacher], temperature), 3, tail)
    generator = torch.Generator().manual_seed(0)
    shapes = [(10, 5), (9, 5), (9,)] if bias else [(10, 5), (9, 5)]
    leaves = [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    inputs, weight, offset = leaves if bias else (*leaves, None)
    arguments = (targets, labels if labelled else None)
    whole = frame_kd_loss(F.linear(inputs, weight, offset), *arguments, temperature=temperature, lean=False)
    parts = linear_kd_loss(inputs, weight, offset, *arguments, temperature=temperature, chunk_frames=3)
    with torch.no_grad():
        values = linear_kd_loss(inputs, weight, offset, *arguments, temperature=temperature, chunk_frames=3)
    for a, b, c in zip(whole, parts, values, strict=True):
        assert a.item() == pytest.approx(b.item(), abs=1e-12)
        assert b.item() == c.item()
    expected = torch.autograd.grad(3 * whole.total, leaves)
    for a, b in zip(torch.autograd.grad(3 * parts.total, leaves), expected, strict=True):
        torch.testing.assert_close(a, b)


def test_linear_in_batches_of_sequences_under_autocast():
    _, teacher, labels = example(14, frames=12)
    targets = average_distributions([teacher], 2.0).view(3, 4, 9)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, 4, 5, generator=generator).requires_grad_()
    weight = torch.randn(9, 5, generator=generator).requires_grad_()
    lengths = torch.tensor([4, 2, 3])
    keywords = {"temperature": 2.0, "lengths": lengths}
    whole = frame_kd_loss(F.linear(inputs, weight), targets, labels.view(3, 4), **keywords)
    with torch.autocast("cpu", torch.bfloat16):
        parts = linear_kd_loss(inputs, weight, None, targets, labels.view(3, 4), chunk_frames=5, **keywords)
    assert parts.total.dtype == torch.float32
    assert parts.total.item() == pytest.approx(whole.total.item(), rel=0.02)
    expected = torch.autograd.grad(whole.total, [inputs, weight])
    for a, b in zip(torch.autograd.grad(parts.total, [inputs, weight]), expected, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).norm() < 0.03 * b.norm()


class Largest(TorchDispatchMode):
    """Elements of the largest tensor made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.untyped_storage().nbytes() // value.element_size())
        return result


def test_linear_never_holds_all_logits():
    inputs, weight = torch.randn(512, 8, requires_grad=True), torch.randn(300, 8, requires_grad=True)
    targets = CompactTargets.top(torch.randn(512, 300).softmax(1), 5)
    with Largest() as mode:
        linear_kd_loss(inputs, weight, None, targets, chunk_frames=32).total.backward()
    assert mode.elements <= 32 * 300


@both_forms
@pytest.mark.parametrize("kind", ["compact", "logits"])
def test_compiles_whole(form, kind):
    logits, teacher, labels = example(15)
    targets = CompactTargets.top(teacher.softmax(1), 3) if kind == "compact" else teacher
    keywords = {} if kind == "compact" else {"soft_kind": "logits"}

    def total(z):
        return frame_kd_loss(z, targets, labels, temperature=1.0, lean=None if form else False, **keywords).total

    # This backend traces everything and calls no compiler, which a test machine may lack.
    compiled = torch.compile(total, backend="aot_eager", fullgraph=True)
    expected, found = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    total(expected).backward()
    compiled(found).backward()
    torch.testing.assert_close(found.grad, expected.grad)


def test_bias_of_a_layer_in_bfloat16_adds_frames_up_before_it_rounds():
    logits, teacher, labels = example(21, frames=300, classes=7)
    weight, bias = torch.eye(7, dtype=torch.bfloat16), torch.zeros(7, dtype=torch.bfloat16, requires_grad=True)
    soft = teacher.softmax(1).float()
    linear_kd_loss(logits.bfloat16(), weight, bias, soft, labels, chunk_frames=300).total.backward()
    _, slope = gradient(logits.bfloat16().float(), soft, labels)
    assert torch.equal(bias.grad, slope.sum(0).bfloat16())
