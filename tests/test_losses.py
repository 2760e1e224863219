"""The distillation loss against a float64 reference, the paper's equations and its own invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_kd.losses import average_distributions, frame_kd_loss


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


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.floats(0.3, 40.0),
    hard_weight=st.floats(0.0, 1.0),
    frames=st.integers(1, 8),
    classes=st.integers(2, 30),
)
def test_matches_float64_reference(seed, temperature, hard_weight, frames, classes):
    logits, teacher, labels = example(seed, frames, classes)
    soft = average_distributions([teacher], temperature)
    loss = frame_kd_loss(logits, soft, labels, temperature=temperature, hard_weight=hard_weight)
    total, kl = reference(logits, soft, labels, temperature, hard_weight)
    assert loss.total.item() == pytest.approx(total, abs=1e-10, rel=1e-10)
    assert loss.kl.item() == pytest.approx(kl, abs=1e-10)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 20.0])
def test_gradient_is_equation_2(temperature):
    logits, teacher, _ = example(1)
    logits.requires_grad_()
    soft = average_distributions([teacher], temperature)
    frame_kd_loss(logits, soft, temperature=temperature).total.backward()
    expected = temperature**2 * (torch.softmax(logits / temperature, 1) - soft) / temperature / len(logits)
    torch.testing.assert_close(logits.grad, expected.detach(), atol=1e-12, rtol=1e-10)


def test_high_temperature_is_logit_matching():
    """Equation 4: with zero-mean logits the gradient tends to (z_i − v_i) / N once multiplied by T²."""
    logits, teacher, _ = example(2)
    logits = logits - logits.mean(1, keepdim=True)
    teacher = teacher - teacher.mean(1, keepdim=True)
    logits.requires_grad_()
    temperature = 1e5
    frame_kd_loss(logits, average_distributions([teacher], temperature), temperature=temperature).total.backward()
    expected = (logits - teacher) / logits.shape[1] / len(logits)
    torch.testing.assert_close(logits.grad, expected.detach(), atol=1e-4, rtol=1e-3)


def test_equal_distributions_give_zero_kl_and_no_gradient():
    logits, _, _ = example(3)
    logits.requires_grad_()
    loss = frame_kd_loss(logits, average_distributions([logits.detach()], 2.0), temperature=2.0)
    loss.total.backward()
    assert abs(loss.kl.item()) < 1e-12
    assert logits.grad.abs().max() < 1e-12


def test_padding_and_batching_never_change_the_value():
    logits, teacher, labels = example(4, frames=8)
    soft = average_distributions([teacher], 2.0)
    plain = frame_kd_loss(logits, soft, labels, temperature=2.0)
    padded_logits = torch.cat([logits, torch.full((4, 9), 1e4)]).view(3, 4, 9)
    padded_soft = torch.cat([soft, torch.zeros(4, 9)]).view(3, 4, 9)
    padded_labels = torch.cat([labels, torch.full((4,), -100)]).view(3, 4)
    for arguments in (
        {"labels": padded_labels},
        {"labels": padded_labels.clamp(min=0), "mask": padded_labels >= 0},
    ):
        padded = frame_kd_loss(padded_logits, padded_soft, temperature=2.0, **arguments)
        for a, b in zip(plain, padded, strict=True):
            assert a.item() == pytest.approx(b.item(), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_values_stay_finite(dtype):
    logits = (torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]])).to(dtype).requires_grad_()
    soft = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    loss = frame_kd_loss(logits, soft, torch.tensor([0, 2]), temperature=2.0)
    loss.total.backward()
    assert all(torch.isfinite(part) for part in loss)
    assert torch.isfinite(logits.grad).all()


def test_no_valid_frame_is_zero():
    logits, teacher, labels = example(5)
    logits.requires_grad_()
    loss = frame_kd_loss(logits, average_distributions([teacher]), torch.full_like(labels, -100))
    loss.total.backward()
    assert loss.total.item() == 0
    assert logits.grad.abs().max() == 0


def test_mean_of_distributions():
    logits, teacher, _ = example(6)
    arithmetic = average_distributions([logits, teacher], 2.0)
    torch.testing.assert_close(arithmetic, (torch.softmax(logits / 2, 1) + torch.softmax(teacher / 2, 1)) / 2)
    geometric = average_distributions([logits, teacher], 2.0, "geometric")
    product = (torch.softmax(logits / 2, 1) * torch.softmax(teacher / 2, 1)).sqrt()
    torch.testing.assert_close(geometric, product / product.sum(1, keepdim=True))


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": 0.0},
        {"hard_weight": 1.5},
        {"labels": torch.zeros(3, dtype=torch.long)},
        {"mask": torch.ones(3, dtype=torch.bool)},
    ],
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError):
        frame_kd_loss(torch.zeros(2, 3), torch.full((2, 3), 1 / 3), **arguments)
    with pytest.raises(ValueError):
        frame_kd_loss(torch.zeros(2, 3), torch.zeros(2, 4))
