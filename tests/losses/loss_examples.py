"""Random examples, and the definition of the loss in plain float64 loops."""

import math

import pytest
import torch

from asr_kd.losses import frame_kd_loss

PRIOR = torch.arange(1.0, 10.0, dtype=torch.float64) / 45
TEMPERATURES = [0.5, 1.0, 2.0, 3.7, 20.0]
both_forms = pytest.mark.parametrize("form", [True, False], ids=["lean", "plain"])


def reference(logits, soft, labels, temperature, hard_weight, weights=None):
    """Total, soft, hard, KL and weights as section 2 of the paper defines them; -100 is a frame without a label."""
    weights = [1.0] * len(logits) if weights is None else weights.tolist()
    total = soft_sum = hard_sum = kl = labelled = 0.0
    for z, q, label, weight in zip(
        logits.double().tolist(), soft.double().tolist(), labels.tolist(), weights, strict=True
    ):
        largest = max(z)

        def log_p(i, t, z=z, largest=largest):
            return (z[i] - largest) / t - math.log(sum(math.exp((v - largest) / t) for v in z))

        cross = -sum(q[i] * log_p(i, temperature) for i in range(len(z)))
        kl += weight * (cross + sum(v * math.log(v) for v in q if v > 0))
        cost = temperature**2 * cross
        soft_sum += weight * cost
        if label >= 0:
            labelled += weight
            hard_sum -= weight * log_p(label, 1.0)
            cost = (1 - hard_weight) * cost - hard_weight * log_p(label, 1.0)
        total += weight * cost
    everything = sum(weights)
    hard = hard_sum / labelled if labelled else 0.0
    return total / everything, soft_sum / everything, hard, kl / everything, everything, labelled


def generator_of(seed):
    """A generator of torch's default device."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def example(seed, frames=6, classes=9, scale=3.0):
    """Student logits, teacher logits and labels, on torch's default device."""
    generator = generator_of(seed)
    logits = torch.randn(frames, classes, generator=generator, dtype=torch.float64) * scale
    teacher = torch.randn(frames, classes, generator=generator, dtype=torch.float64) * scale
    labels = torch.randint(classes, (frames,), generator=generator)
    return logits, teacher, labels


def gradient(logits, *arguments, loss=frame_kd_loss, **keywords):
    """A loss and its gradient with respect to the logits."""
    logits = logits.detach().clone().requires_grad_()
    parts = loss(logits, *arguments, **keywords)
    (parts.total if isinstance(parts, tuple) else parts).backward()
    return parts, logits.grad
