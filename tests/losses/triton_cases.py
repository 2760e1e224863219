"""The Triton kernels against the plain form in float64, in Triton's interpreter or on a GPU (test_triton_loss.py).

Triton reads TRITON_INTERPRET when it is first imported, so they have a process of their own.
"""

import os

import pytest
import torch
from kernel_cases import *  # noqa: F403  the tests
from kernel_cases import compare, targets_of
from loss_examples import example, gradient

from asr_kd.losses import frame_kd, lean, triton_sweep


@pytest.fixture(autouse=True)
def on_the_kernel(monkeypatch):
    """Have the kernel for tensors of a CPU too, in blocks of few classes, and count its calls."""
    torch.set_default_device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
    calls = []

    class Counted(triton_sweep.GPUSweep):
        def read(self, *arguments):
            calls.append(arguments)
            super().read(*arguments)

    monkeypatch.setattr(triton_sweep, "BLOCK", 16)
    for module in (frame_kd, lean):
        monkeypatch.setattr(module, "find_gpu_sweep", lambda z, _: None if z.dtype == torch.float64 else Counted)
    yield
    torch.set_default_device(None)
    assert calls


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["logits", "even"])
def test_half_precision(kind, dtype):
    logits, teacher, labels = example(7, frames=4, classes=37)
    targets, keywords = targets_of(kind, teacher, 2.0)
    compare(logits, targets, labels, torch.finfo(dtype).eps, dtype, temperature=2.0, **keywords)


@pytest.mark.parametrize("kind", ["logits", "dense"])
def test_views_that_are_not_contiguous(kind):
    logits, teacher, labels = example(8, frames=4, classes=37)
    targets, keywords = targets_of(kind, teacher, 2.0)
    transposed = logits.float().t().contiguous().t()
    found, slope = gradient(transposed, targets.t().contiguous().t(), labels, temperature=2.0, **keywords)
    expected, expected_slope = gradient(logits.float(), targets, labels, temperature=2.0, **keywords)
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))
    torch.testing.assert_close(slope, expected_slope)
