"""Time and memory of the distillation loss (forward and backward), the standard formula and other packages.

    python tools/bench_loss.py --out loss.json

Every time is compared with two others of the same run: that of the strongest peer, the standard formula under
torch.compile (without torch.compile: the standard formula), and that of a copy of the logits (each read and written
once), which no loss that returns a gradient can beat.  Compilation is not timed.  The copy writes to memory that the
process already has.  "Fresh copy" allocates its memory, as a gradient does.  On a CPU, allocation can take most of the
time, because the operating system clears large blocks before it hands them out.  To let the process keep them instead:

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 python tools/bench_loss.py
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench
import torch
import tyro
from torch import Tensor
from torch._inductor import config as inductor
from torch.nn import functional as F

from asr_kd.losses import CompactTargets, frame_kd_loss, linear_kd_loss


@dataclasses.dataclass
class Config:
    """Measure the time and memory of the loss."""

    classes: tuple[int, ...] = (500, 2000, 14000, 50000)
    """Numbers of senones."""
    logits: int = 28_672_000
    """Number of logits per batch: frames × classes (2,048 frames of 14,000 senones)."""
    width: int = 512
    """Number of inputs of the output layer, for the fused loss."""
    top: int = 20
    """Number of classes per frame in compact targets, as in a store with the default flags."""
    temperature: float = 2.0
    """Temperature T."""
    dtype: str = "float32"
    """Number type of the logits: float32 or bfloat16."""
    threads: tuple[int, ...] = ()
    """Numbers of threads on a CPU.  Default: one, and all cores."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu or cuda."""
    compiled: bool = True
    """Also measure torch.compile, where it works."""
    layer: bool = True
    """Also measure the loss together with the output layer."""
    profile: bool = False
    """Also print where the loss with compact targets spends its time."""
    out: Path | None = None
    """JSON file for the results."""


def main(config: Config) -> None:
    torch.manual_seed(0)
    default = (torch.get_num_threads(),) if config.device != "cpu" else tuple(sorted({1, os.cpu_count() or 1}))
    config = dataclasses.replace(
        config, threads=config.threads or default, compiled=config.compiled and can_compile(config.device)
    )
    rows = [
        row for classes in config.classes for threads in config.threads for row in measure(config, classes, threads)
    ]
    bench.report(config, rows, f"{config.dtype}, T = {config.temperature:g}, forward and backward")


def can_compile(device: str) -> bool:
    """Whether torch.compile works here; it needs a C++ compiler on a CPU, and Triton and a C compiler on a GPU."""
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:
        print(f"torch.compile is not measured: {error}")
        return False
    return True


def measure(config: Config, classes: int, threads: int) -> Iterator[dict[str, Any]]:
    torch.set_num_threads(threads)
    inductor.cpp.threads = threads  # part of the key under which compiled code is kept
    torch.compiler.reset()
    frames, device = config.logits // classes, config.device
    data = random_batch(config, classes)
    size = data.logits.numel() * data.logits.element_size()
    forms = losses_of_logits(config, data) | (losses_of_layers(config, data) if config.layer else {})
    target = torch.empty_like(data.logits)
    copy = bench.seconds(lambda: torch.Tensor.copy_(target, data.logits), device)
    fresh_copy = bench.seconds(data.logits.clone, device)
    if config.profile:
        profile(forms["ours, compact targets"])
    times: dict[str, float] = {}
    for name, call in forms.items():
        times[name] = bench.seconds(call, device)
        extra = bench.extra_bytes(call, device) / size
        base = ("output layer + " if "layer" in name else "") + "standard formula"
        yield {
            "senones": classes,
            "frames": frames,
            "threads": threads,
            "form": name,
            "ms": 1e3 * times[name],
            "speedup": times.get(f"{base}, compiled", times.get(base, times[name])) / times[name],
            "time / copy": times[name] / copy,
            "time / fresh copy": times[name] / fresh_copy,
            "extra memory / logits": extra,
        }


@dataclasses.dataclass
class Batch:
    """Random logits (N, C) of a student and a teacher, their labels, and the teacher's compact targets."""

    logits: Tensor
    teacher: Tensor
    labels: Tensor
    compact: CompactTargets


def random_batch(config: Config, classes: int) -> Batch:
    frames, dtype = config.logits // classes, getattr(torch, config.dtype)
    logits, teacher = (torch.randn(frames, classes, device=config.device, dtype=dtype).mul_(3) for _ in range(2))
    labels = torch.randint(classes, (frames,), device=config.device)
    return Batch(logits, teacher, labels, top_classes((teacher.float() / config.temperature).softmax(1), config.top))


def differentiated(loss: Callable[..., Tensor], *tensors: Tensor) -> Callable[[], object]:
    """A call that computes a loss and the gradients with respect to all of ``tensors``."""

    def call() -> object:
        leaves = [t.detach().requires_grad_() for t in tensors]
        loss(*leaves).backward()
        return [leaf.grad for leaf in leaves]

    return call


def without_kernel(loss: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The same loss by torch's own operations, as where there is no compiler (CPU) or no Triton (GPU)."""

    def call(logits: Tensor) -> Tensor:
        os.environ["ASR_KD_KERNELS"] = "0"
        try:
            return loss(logits)
        finally:
            del os.environ["ASR_KD_KERNELS"]

    return call


def losses_of_logits(config: Config, data: Batch) -> dict[str, Callable[[], object]]:
    """The forms to measure, the strongest peer first."""
    teacher, labels, compact, temperature = data.teacher, data.labels, data.compact, config.temperature
    keywords: dict[str, Any] = {"temperature": temperature, "hard_weight": 0.5}

    def compact_loss(z: Tensor, lean: bool | None = None) -> Tensor:
        return frame_kd_loss(z, compact, labels, lean=lean, **keywords).total

    def dense_loss(z: Tensor, lean: bool | None = None) -> Tensor:
        return frame_kd_loss(z, teacher, labels, soft_kind="logits", lean=lean, **keywords).total

    def standard(z: Tensor) -> Tensor:
        return standard_loss(z, teacher, labels, temperature)

    ordered: dict[str, Callable[[Tensor], Tensor]] = {
        "standard formula": standard,
        "ours, compact targets": compact_loss,
        "ours, teacher's logits": dense_loss,
        "ours, compact targets, no kernel": without_kernel(compact_loss),
        "ours, teacher's logits, no kernel": without_kernel(dense_loss),
    }
    if config.compiled:
        ordered = {"standard formula, compiled": torch.compile(standard)} | ordered
        ordered["ours, plain form, compact targets, compiled"] = torch.compile(lambda z: compact_loss(z, lean=False))
        ordered["ours, plain form, teacher's logits, compiled"] = torch.compile(lambda z: dense_loss(z, lean=False))
    ordered |= dict(peers(teacher, labels))
    return {name: differentiated(loss, data.logits) for name, loss in ordered.items()}


def losses_of_layers(config: Config, data: Batch) -> dict[str, Callable[[], object]]:
    """The forms to measure that include the output layer."""
    frames, classes = data.logits.shape
    inputs = data.logits.new_empty(frames, config.width).normal_()
    weight = data.logits.new_empty(classes, config.width).normal_() / config.width**0.5
    keywords: dict[str, Any] = {"temperature": config.temperature, "hard_weight": 0.5}

    def standard(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        return standard_loss(F.linear(x, w, b), data.teacher, data.labels, config.temperature)

    forms: dict[str, Callable[..., Tensor]] = {"output layer + standard formula": standard}
    if config.compiled:
        forms = {"output layer + standard formula, compiled": torch.compile(standard)} | forms
    forms["ours, fused with the output layer"] = lambda x, w, b: (
        linear_kd_loss(x, w, b, data.compact, data.labels, **keywords).total
    )
    bias = data.logits.new_zeros(classes)
    return {name: differentiated(loss, inputs, weight, bias) for name, loss in forms.items()}


def profile(call: Callable[[], object]) -> None:
    """Print the operations that take the most time."""
    call()
    with torch.profiler.profile() as profiler:
        call()
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=30))


def top_classes(posteriors: Tensor, top: int) -> CompactTargets:
    """The most probable classes, renormalised: the form in which a store returns a batch."""
    values, classes = posteriors.topk(top, dim=1)
    return CompactTargets(classes, values / values.sum(1, keepdim=True), "none")


def standard_loss(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The formula of tutorials."""
    soft = F.kl_div(F.log_softmax(logits / temperature, 1), F.softmax(teacher / temperature, 1), reduction="batchmean")
    return 0.5 * soft * temperature**2 + 0.5 * F.cross_entropy(logits, labels)


def peers(teacher: Tensor, labels: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """The losses of other packages, if they are installed and run on this device."""
    try:
        from torchtune.modules.loss import ForwardKLLoss
    except ImportError as error:
        print(f"torchtune is not measured: {error}")
    else:
        kl = ForwardKLLoss()
        yield (
            "torchtune ForwardKLLoss (T = 1)",
            lambda z: 0.5 * kl(z, teacher, labels) + 0.5 * F.cross_entropy(z, labels),
        )
    try:
        from liger_kernel.transformers import LigerKLDIVLoss
    except ImportError as error:
        print(f"Liger is not measured: {error}")
    else:
        if teacher.is_cuda:
            divergence = LigerKLDIVLoss(reduction="batchmean")
            yield (
                "Liger KLDIVLoss (T = 1)",
                lambda z: (
                    0.5 * divergence(F.log_softmax(z, 1), F.softmax(teacher, 1)) + 0.5 * F.cross_entropy(z, labels)
                ),
            )
        else:
            print("Liger is not measured: its kernels run only on GPUs")


if __name__ == "__main__":
    main(tyro.cli(Config))
