"""The loss on a GPU: its Triton kernel in Triton's interpreter on the CPU, and compiled for a GPU that is not here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton, which comes with torch for CUDA on Linux, is not installed")
CASES = Path(__file__).parent / "triton_cases.py"


def test_kernel_equals_plain_form():
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets all kernels here")
@pytest.mark.parametrize("kind", range(5))
def test_kernel_compiles(kind):
    """The interpreter knows no types; the compiler, which needs no GPU, does."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from asr_kd.losses.triton_sweep import _sweep

    fixed = {"CLASSES": 14001, "KIND": kind, "LABELLED": True, "GRADIENT": True, "BLOCK": 4096, "KEPT_BLOCK": 32}
    types = {"kept_classes": "*i64", "labels": "*i64", "excluded": "*i1", "num_kept": "i32", "scale": "fp32"}
    types |= {"logits": "*bf16", "out": "*bf16"} | dict.fromkeys(fixed, "constexpr")
    types |= {name: "i32" for name in _sweep.arg_names if name.endswith(("_row", "_column"))}
    source = ASTSource(
        _sweep,
        {name: types.get(name, "*fp32") for name in _sweep.arg_names},
        constexprs={(_sweep.arg_names.index(name),): value for name, value in fixed.items()},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    assert "ex2.approx" in compiled.asm["ptx"]
