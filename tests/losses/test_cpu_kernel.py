"""The loss on a CPU by the kernel that a compiler builds, against the plain form in float64."""

import os

import pytest
import torch
from kernel_cases import *  # noqa: F403  the tests
from kernel_cases import compare
from loss_examples import example, gradient

from asr_kd.losses import CompactTargets, average_distributions, cpu_sweep, kernels


@pytest.fixture(autouse=True)
def on_the_kernel(monkeypatch):
    """Use the kernel for few logits too, and count its calls."""
    if cpu_sweep.library() is None:
        pytest.skip("there is no C++ compiler")
    calls, sweep_frames = [], cpu_sweep.sweep_frames

    def counted(*arguments):
        calls.append(arguments)
        sweep_frames(*arguments)

    monkeypatch.setattr(kernels, "CPU_LOGITS", 0)
    monkeypatch.setattr(cpu_sweep, "sweep_frames", counted)
    yield calls
    assert calls


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["dense", "logits", "even"])
def test_many_classes(kind, threads, monkeypatch):
    """Several blocks of the sums; more threads than some have frames."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    logits, teacher, labels = example(4, frames=5, classes=5000)
    soft = average_distributions([teacher], 2.0).float()
    targets = {"dense": soft, "logits": teacher.float(), "even": CompactTargets.top(soft, 7)}[kind]
    keywords = {"soft_kind": "logits"} if kind == "logits" else {}
    compare(logits, targets, labels, 1e-6, temperature=2.0, **keywords)


@pytest.mark.parametrize("missing", ["compiler", "home"])
def test_without_a_compiler_or_a_home_plain_torch_computes_the_same(missing, on_the_kernel, monkeypatch):
    logits, teacher, labels = (t.float() if t.is_floating_point() else t for t in example(6))
    expected, slope = gradient(logits, teacher, labels, soft_kind="logits", temperature=2.0)
    assert len(on_the_kernel) == 1
    if missing == "compiler":
        monkeypatch.setenv("CXX", "no-such-compiler")
    else:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user whom the system does not know
    cpu_sweep.library.cache_clear()
    found, found_slope = gradient(logits, teacher, labels, soft_kind="logits", temperature=2.0)
    cpu_sweep.library.cache_clear()
    assert len(on_the_kernel) == 1
    torch.testing.assert_close(torch.stack(found), torch.stack(expected))
    torch.testing.assert_close(found_slope, slope)
