"""Speed of combining a generalist with specialists (section 5.4 of the paper), compared with a copy of the posteriors.

    python tools/bench_combine.py --out combine.json

The posteriors are random.  The gap is a proved upper bound on the distance between the sum of divergences and its
minimum.
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
    """Measure how fast the combined distribution q is computed."""

    classes: int = 1000
    """Number of classes of the generalist."""
    specialists: int = 10
    """Number of specialists."""
    special: int = 50
    """Number of classes per specialist."""
    examples: int = 8192
    """Number of examples per call."""
    peak: float = 3.0
    """Standard deviation of the random logits: a larger one gives more peaked posteriors."""
    out: Path | None = None
    """JSON file for the results."""


def main(config: Config) -> None:
    torch.manual_seed(0)
    rows = [measure(config, overlap, top_k) for overlap in (False, True) for top_k in (1, 5, config.classes)]
    bench.report(config, rows, f"{config.classes} classes, {config.specialists} specialists of {config.special}")


def measure(config: Config, overlap: bool, top_k: int) -> dict[str, Any]:
    """The speed with specialists that share classes (``overlap``) or do not."""
    if overlap:
        groups = [torch.randperm(config.classes)[: config.special] for _ in range(config.specialists)]
    else:
        groups = list(torch.randperm(config.classes)[: config.special * config.specialists].split(config.special))
    logits = config.peak * torch.randn(config.examples, config.classes)
    general = logits.softmax(1)
    active = active_specialists(general, membership(groups, config.classes), top_k)
    specialists = [
        SpecialistPosteriors(group, random_posteriors(logits[rows], group))
        for group, rows in zip(groups, active.T, strict=True)
    ]
    combined = combine(general, specialists, active)
    seconds = bench.seconds(lambda: combine(general, specialists, active), "cpu")
    return {
        "specialists share classes": "yes" if overlap else "no",
        "active specialists": active.sum(1).float().mean().item(),
        "examples/s": round(config.examples / seconds),
        "time / copy": seconds / bench.seconds(general.clone, "cpu"),
        "steps": combined.steps,
        "largest gap, nats": combined.gap.max().item(),
    }


def random_posteriors(logits: Tensor, group: Tensor) -> Tensor:
    """Posteriors of a specialist: the generalist's logits plus noise, with all other classes in the last one."""
    noisy = logits + torch.randn_like(logits)
    special = noisy[:, group]
    noisy[:, group] = -torch.inf
    return torch.cat([special, noisy.logsumexp(1, keepdim=True)], 1).softmax(1)


if __name__ == "__main__":
    main(tyro.cli(Config))
