"""Time and memory of the distillation loss (forward and backward), the standard formula and other packages.

    python tools/bench_loss.py --out loss.json

Every time is compared with two others of the same run: that of the standard formula, and that of a copy of the logits
(each read and written once), which no loss that returns a gradient can beat.  The copy writes to memory that the
process already has.  "Fresh copy" allocates its memory, as a gradient does.  On a CPU, allocation can take most of the
time, because the operating system clears large blocks before it hands them out.  To let the process keep them instead:

    MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 python tools/bench_loss.py
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bench
import torch
import tyro
from torch import Tensor
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
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu or cuda."""
    profile: bool = False
    """Also print where the loss with compact targets spends its time."""
    out: Path | None = None
    """JSON file for the results."""


def main(config: Config) -> None:
    torch.manual_seed(0)
    rows = [row for classes in config.classes for row in measure(config, classes)]
    bench.report(config, rows, f"{config.dtype}, T = {config.temperature:g}, forward and backward")


def measure(config: Config, classes: int) -> Iterator[dict[str, Any]]:
    frames, device, temperature = config.logits // classes, config.device, config.temperature
    dtype = getattr(torch, config.dtype)
    logits = torch.randn(frames, classes, device=device, dtype=dtype).mul_(3)
    teacher = torch.randn(frames, classes, device=device, dtype=dtype).mul_(3)
    labels = torch.randint(classes, (frames,), device=device)
    compact = top_classes((teacher.float() / temperature).softmax(1), config.top)
    size = logits.numel() * logits.element_size()
    target = torch.empty_like(logits)
    copy = bench.seconds(lambda: torch.Tensor.copy_(target, logits), device)
    fresh_copy = bench.seconds(logits.clone, device)
    keywords: dict[str, Any] = {"temperature": temperature, "hard_weight": 0.5}

    def on_logits(loss: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def call() -> object:
            leaf = logits.detach().requires_grad_()
            loss(leaf).backward()
            return leaf.grad

        return call

    forms: dict[str, Callable[[], object]] = {
        "standard formula": on_logits(lambda z: standard_loss(z, teacher, labels, temperature)),
        "ours, compact targets": on_logits(lambda z: frame_kd_loss(z, compact, labels, **keywords).total),
        "ours, teacher's logits": on_logits(
            lambda z: frame_kd_loss(z, teacher, labels, soft_kind="logits", **keywords).total
        ),
        "ours, plain form": on_logits(lambda z: frame_kd_loss(z, compact, labels, lean=False, **keywords).total),
        **{name: on_logits(loss) for name, loss in peers(teacher, labels)},
    }
    inputs = torch.randn(frames, config.width, device=device, dtype=dtype)
    weight = torch.randn(classes, config.width, device=device, dtype=dtype) / config.width**0.5
    bias = torch.zeros(classes, device=device, dtype=dtype)

    def with_layer(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[], object]:
        def call() -> object:
            leaves = [t.detach().requires_grad_() for t in (inputs, weight, bias)]
            loss(*leaves).backward()
            return [leaf.grad for leaf in leaves]

        return call

    forms["output layer + standard formula"] = with_layer(
        lambda x, w, b: standard_loss(F.linear(x, w, b), teacher, labels, temperature)
    )
    forms["ours, fused with the output layer"] = with_layer(
        lambda x, w, b: linear_kd_loss(x, w, b, compact, labels, **keywords).total
    )
    if config.profile:
        profile(forms["ours, compact targets"])
    times: dict[str, float] = {}
    for name, call in forms.items():
        times[name] = bench.seconds(call, device)
        base = times["output layer + standard formula" if "layer" in name else "standard formula"]
        yield {
            "senones": classes,
            "frames": frames,
            "form": name,
            "ms": 1e3 * times[name],
            "speedup": base / times[name],
            "time / copy": times[name] / copy,
            "time / fresh copy": times[name] / fresh_copy,
            "extra memory / logits": bench.extra_bytes(call, device) / size,
        }


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
