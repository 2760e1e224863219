"""The loss on a GPU: its Triton kernels in Triton's interpreter, compiled without a GPU, and on one that is there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton, which comes with torch for CUDA on Linux, is not installed")
CASES = Path(__file__).parent / "triton_cases.py"


def run_cases(interpret):
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": interpret}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


def test_kernel_equals_plain_form():
    run_cases(interpret="1")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_kernel_equals_plain_form_on_a_gpu():
    run_cases(interpret="0")


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets all kernels here")
@pytest.mark.parametrize(("kind", "given"), [*((kind, True) for kind in range(5)), (3, False)])
@pytest.mark.parametrize("kernel", ["_read", "_slope"])
def test_kernel_compiles(kernel, kind, given):
    """The interpreter knows no types; the compiler, which needs no GPU, does.  Given are labels and weights."""
    fixed = {"CLASSES": 14001, "KIND": kind, "BLOCK": 4096, "KEPT_BLOCK": 32}
    fixed |= {} if given else dict.fromkeys(["labels", "weights"])
    fixed |= {} if kind == 4 else dict.fromkeys(["base", "base_sums"])
    fixed |= {} if kind >= 2 else dict.fromkeys(["kept", "kept_classes"])
    assert "ex2.approx" in ptx(kernel, fixed)


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets all kernels here")
@pytest.mark.parametrize("labelled", [True, False])
def test_last_kernel_compiles(labelled):
    assert "st.global" in ptx("_finish", {"LABELLED": labelled, "SOFT": True, "HARD": True, "BLOCK": 4096})


def ptx(name, fixed):
    """A kernel as it is compiled for an H100, given its constants."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from asr_kd.losses import triton_sweep

    kernel = getattr(triton_sweep, name)
    types = {"kept_classes": "*i64", "labels": "*i64", "weights": "*fp64", "total_weight": "*fp64"}
    types |= {"logits": "*bf16"} | dict.fromkeys(["num_kept", "frames", "first"], "i32")
    types |= {n: "i32" for n in kernel.arg_names if n.endswith(("_row", "_column"))}
    types |= dict.fromkeys(["scale", "temperature", "hard_weight"], "fp32") | dict.fromkeys(fixed, "constexpr")
    types |= {"out": "*bf16"} if name == "_slope" else {}
    constants = {(kernel.arg_names.index(n),): value for n, value in fixed.items() if n in kernel.arg_names}
    source = ASTSource(kernel, {n: types.get(n, "*fp32") for n in kernel.arg_names}, constexprs=constants)
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8}).asm["ptx"]
