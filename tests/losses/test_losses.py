"""The distillation losses against a float64 reference, the paper's equations and their own invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from asr_kd.losses import (
    CompactTargets,
    FrameKDLoss,
    average_distributions,
    frame_kd_loss,
    lean,
    linear_kd_loss,
    logit_matching_loss,
)

PRIOR = torch.arange(1.0, 10.0, dtype=torch.float64) / 45
TEMPERATURES = [0.5, 1.0, 2.0, 3.7, 20.0]
both_forms = pytest.mark.parametrize("form", [True, False], ids=["lean", "plain"])


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch):
    monkeypatch.setattr(lean, "CPU_CHUNK", 20)


def reference(logits, soft, labels, temperature, hard_weight):
    """Plain float64 loops over the definition in section 2 of the paper."""
    total = kl = 0.0
    for z, q, label in zip(logits.double().tolist(), soft.double().tolist(), labels.tolist(), strict=True):
        largest = max(z)

        def log_p(i, t, z=z, largest=largest):
            return (z[i] - largest) / t - math.log(sum(math.exp((v - largest) / t) for v in z))

        cross = -sum(q[i] * log_p(i, temperature) for i in range(len(z)))
        kl += cross + sum(v * math.log(v) for v in q if v > 0)
        total += (1 - hard_weight) * temperature**2 * cross - hard_weight * log_p(label, 1.0)
    return total / len(logits), kl / len(logits)


def example(seed, frames=6, classes=9, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(frames, classes, generator=generator, dtype=torch.float64) * scale
    teacher = torch.randn(frames, classes, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(classes, (frames,), generator=generator)
    return logits, teacher, labels


def gradient(logits, *arguments, loss=frame_kd_loss, **keywords):
    logits = logits.detach().clone().requires_grad_()
    parts = loss(logits, *arguments, **keywords)
    (parts.total if isinstance(parts, tuple) else parts).backward()
    return parts, logits.grad


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
    total, kl = reference(logits, soft, labels, temperature, hard_weight)
    given, keywords = soft, {}
    if kind == "logits":
        given, keywords = teacher, {"soft_kind": "logits"}
    elif kind == "compact":
        given = CompactTargets.top(soft, classes)
    loss = frame_kd_loss(logits, given, labels, temperature=temperature, hard_weight=hard_weight, lean=form, **keywords)
    assert loss.total.item() == pytest.approx(total, abs=1e-10, rel=1e-10)
    assert loss.kl.item() == pytest.approx(kl, abs=1e-10)


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
    for arguments in (
        {"labels": padded_labels},
        {"labels": padded_labels.clamp(min=0), "mask": padded_labels >= 0},
        {"labels": padded_labels.clamp(min=0), "lengths": torch.tensor([5, 3])},
        {"labels": padded_labels.clamp(min=0), "weights": 0.5 * (padded_labels >= 0)},
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
    for a, b in zip(
        frame_kd_loss(logits, teacher, labels, weights=0.1 * times.double(), **keywords),
        frame_kd_loss(*repeated, **keywords),
        strict=True,
    ):
        assert a.item() == pytest.approx(b.item(), abs=1e-12)


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


def test_float16_gradients_survive_many_frames():
    """One frame's share of the mean of 20,000 is below float16; the caller's loss scale must come first."""
    logits, teacher, labels = (t.repeat(3000, *[1] * (t.dim() - 1)) for t in example(7))
    keywords = {"soft_kind": "logits", "temperature": 2.0, "lean": True}
    _, expected = gradient(logits, teacher, labels, **keywords)
    half = logits.half().requires_grad_()
    (frame_kd_loss(half, teacher, labels, **keywords).total * 2.0**14).backward()
    torch.testing.assert_close(half.grad.double() / 2.0**14, expected, atol=1e-7, rtol=1e-2)


@both_forms
def test_no_valid_frame_is_zero(form):
    logits, teacher, labels = example(8)
    loss, found = gradient(logits, teacher, torch.full_like(labels, -100), soft_kind="logits", lean=form)
    assert loss.total.item() == 0
    assert found.abs().max() == 0


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
        with pytest.raises(ValueError, match="needs the prior"):
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


@both_forms
def test_no_frames_at_all(form):
    logits = torch.randn(0, 9, requires_grad=True)
    parts = frame_kd_loss(logits, torch.zeros(0, 9), torch.zeros(0, dtype=torch.int64), temperature=2.0, lean=form)
    assert [part.item() for part in parts] == [0, 0, 0, 0]
    parts.total.backward()
    assert logits.grad.shape == (0, 9)


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
