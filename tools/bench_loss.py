"""Time and memory of the distillation loss, forward and backward, beside the usual formula and other packages.

    python tools/bench_loss.py --out loss.json

Every figure is a ratio against something measured in the same run: the usual formula, and a copy of the logits
(each read and written once), which bounds any loss that returns a gradient.  The copy goes to memory in use; "fresh
copy" asks for its memory as a gradient does.  On a CPU that can take most of the time, because the kernel clears large
pieces before it lends them; to keep them instead:

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
    """Benchmark the loss."""

    classes: tuple[int, ...] = (500, 2000, 14000, 50000)
    """Senones."""
    logits: int = 28_672_000
    """Logits a batch: frames × classes (2,048 frames of 14,000 senones)."""
    width: int = 512
    """Inputs of the output layer, for the fused form."""
    kept: int = 20
    """Classes a frame in compact targets, as in a store of the default form."""
    temperature: float = 2.0
    """Temperature T."""
    dtype: str = "float32"
    """Of the logits: float32 or bfloat16."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """cpu or cuda."""
    profile: bool = False
    """Show where the loss with compact targets spends its time."""
    out: Path | None = None
    """Also write the figures as JSON."""


def main(config: Config) -> None:
    torch.manual_seed(0)
    rows = [row for classes in config.classes for row in measure(config, classes)]
    print(f"{bench.machine(config.device)}; {config.dtype}, T = {config.temperature:g}, forward and backward\n")
    print(bench.table(rows))
    bench.write(config.out, {"machine": bench.machine(config.device), "settings": vars(config) | {"out": None},
                             "rows": rows})  # fmt: skip


def measure(config: Config, classes: int) -> Iterator[dict[str, Any]]:
    frames, device, temperature = config.logits // classes, config.device, config.temperature
    dtype = getattr(torch, config.dtype)
    logits = torch.randn(frames, classes, device=device, dtype=dtype).mul_(3)
    teacher = torch.randn(frames, classes, device=device, dtype=dtype).mul_(3)
    labels = torch.randint(classes, (frames,), device=device)
    compact = kept_classes((teacher.float() / temperature).softmax(1), config.kept)
    size = logits.numel() * logits.element_size()
    room = torch.empty_like(logits)
    floor = bench.seconds(lambda: torch.Tensor.copy_(room, logits), device)
    fresh = bench.seconds(logits.clone, device)
    keywords: dict[str, Any] = {"temperature": temperature, "hard_weight": 0.5}

    def on_logits(loss: Callable[[Tensor], Tensor]) -> Callable[[], object]:
        def call() -> object:
            leaf = logits.detach().requires_grad_()
            loss(leaf).backward()
            return leaf.grad

        return call

    forms: dict[str, Callable[[], object]] = {
        "usual formula": on_logits(lambda z: usual(z, teacher, labels, temperature)),
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

    forms["output layer + usual formula"] = with_layer(
        lambda x, w, b: usual(F.linear(x, w, b), teacher, labels, temperature)
    )
    forms["ours, fused with the output layer"] = with_layer(
        lambda x, w, b: linear_kd_loss(x, w, b, compact, labels, **keywords).total
    )
    if config.profile:
        profile(forms["ours, compact targets"])
    times: dict[str, float] = {}
    for name, call in forms.items():
        times[name] = bench.seconds(call, device)
        base = times["output layer + usual formula" if "layer" in name else "usual formula"]
        yield {
            "senones": classes,
            "frames": frames,
            "form": name,
            "ms": 1e3 * times[name],
            "times as fast as the usual": base / times[name],
            "times a copy of the logits": times[name] / floor,
            "times a fresh copy": times[name] / fresh,
            "extra memory / logits": bench.extra_bytes(call, device) / size,
        }


def profile(call: Callable[[], object]) -> None:
    """Print the operations that take longest."""
    call()
    with torch.profiler.profile() as found:
        call()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=30))


def kept_classes(posteriors: Tensor, kept: int) -> CompactTargets:
    """The likeliest classes, scaled up to one: what the loss is given for a batch from a store."""
    values, classes = posteriors.topk(kept, dim=1)
    return CompactTargets(classes, values / values.sum(1, keepdim=True), "none")


def usual(logits: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """What tutorials write."""
    soft = F.kl_div(F.log_softmax(logits / temperature, 1), F.softmax(teacher / temperature, 1), reduction="batchmean")
    return 0.5 * soft * temperature**2 + 0.5 * F.cross_entropy(logits, labels)


def peers(teacher: Tensor, labels: Tensor) -> Iterator[tuple[str, Callable[[Tensor], Tensor]]]:
    """Losses of packages that are installed and run on this device."""
    try:
        from torchtune.modules.loss import ForwardKLLoss
    except ImportError as error:
        print(f"torchtune is left out: {error}")
    else:
        kl = ForwardKLLoss()
        yield (
            "torchtune ForwardKLLoss (T = 1)",
            lambda z: 0.5 * kl(z, teacher, labels) + 0.5 * F.cross_entropy(z, labels),
        )
    try:
        from liger_kernel.transformers import LigerKLDIVLoss
    except ImportError as error:
        print(f"Liger is left out: {error}")
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
            print("Liger is left out: its kernels run on GPUs alone")


if __name__ == "__main__":
    main(tyro.cli(Config))
