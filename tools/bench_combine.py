"""Speed of combining a generalist with specialists (section 5.4 of the paper), beside a copy of the probabilities.

    python tools/bench_combine.py --out combine.json

The probabilities are random; the gap is the proved bound on how far the sum of divergences is above its minimum.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import bench
import torch
import tyro
from torch import Tensor

from asr_kd.specialists.combine import SpecialistPosteriors, active_specialists, combine, membership


@dataclasses.dataclass
class Config:
    """Benchmark the combined distribution q."""

    classes: int = 1000
    """Classes of the generalist."""
    specialists: int = 10
    """Specialists."""
    special: int = 50
    """Classes of each."""
    examples: int = 8192
    """Examples at once."""
    peak: float = 3.0
    """Standard deviation of the random logits: the larger, the more peaked the probabilities."""
    out: Path | None = None
    """Also write the figures as JSON."""


def main(config: Config) -> None:
    torch.manual_seed(0)
    rows = [measure(config, overlap, top_k) for overlap in (False, True) for top_k in (1, 5, config.classes)]
    print(f"{bench.machine('cpu')}; {config.classes} classes, {config.specialists} specialists of {config.special}\n")
    print(bench.table(rows))
    bench.write(config.out, {"machine": bench.machine("cpu"), "settings": vars(config) | {"out": None}, "rows": rows})


def measure(config: Config, overlap: bool, top_k: int) -> dict[str, Any]:
    """Examples a second, with specialists that share classes or do not."""
    if overlap:
        groups = [torch.randperm(config.classes)[: config.special] for _ in range(config.specialists)]
    else:
        groups = list(torch.randperm(config.classes)[: config.special * config.specialists].split(config.special))
    logits = config.peak * torch.randn(config.examples, config.classes)
    general = logits.softmax(1)
    active = active_specialists(general, membership(groups, config.classes), top_k)
    specialists = [
        SpecialistPosteriors(group, posteriors(logits[rows], group))
        for group, rows in zip(groups, active.T, strict=True)
    ]
    found = combine(general, specialists, active)
    seconds = bench.seconds(lambda: combine(general, specialists, active), "cpu")
    return {
        "specialists share classes": "yes" if overlap else "no",
        "active specialists": active.sum(1).float().mean().item(),
        "examples/s": round(config.examples / seconds),
        "times a copy": seconds / bench.seconds(general.clone, "cpu"),
        "steps": found.steps,
        "largest gap, nats": found.gap.max().item(),
    }


def posteriors(logits: Tensor, group: Tensor) -> Tensor:
    """Return posteriors of a specialist: from the generalist's logits with noise, with all other classes in one."""
    noisy = logits + torch.randn_like(logits)
    special = noisy[:, group]
    noisy[:, group] = -torch.inf
    return torch.cat([special, noisy.logsumexp(1, keepdim=True)], 1).softmax(1)


if __name__ == "__main__":
    main(tyro.cli(Config))
