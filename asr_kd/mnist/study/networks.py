"""``python -m asr_kd.mnist.study``: all networks of the paper's section 3, and what goes past it, in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from asr_kd.mnist.config import Config as Network
from asr_kd.mnist.study.config import Config

WIDTHS = (300, 100, 30)
TEMPERATURES = (1.0, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)
#: Networks on soft targets alone, from low to the limit of high temperatures, in words.
MATCHED = {
    "matched-t-1": "T = 1", "matched-t-4": "T = 4", "matched-t-20": "T = 20", "matched-t-100": "T = 100",
    "matched-t-inf": "logits matched",
}  # fmt: skip
ALL = tuple(range(10))
#: Names of networks in words.
LABELS = {
    "large": "2×1200, dropout, weights limited, moved by up to two pixels",
    "small": "2×800, labels alone",
    "distilled": "2×800, distilled, T = 20",
    "without-3": "2×800, distilled without any three",
    "only-7-8": "2×800, distilled on sevens and eights alone",
    "unlabelled": "no labels",
    "jittered": "transfer set moved by up to two pixels",
    "ensemble": "all large networks as teachers",
    "ensemble-jittered": "all large networks, transfer set moved by up to two pixels",
    "ensemble-bent": "all large networks, transfer set moved by up to a pixel and bent",
    "bent-hard": "no teacher: labels alone, images moved by up to a pixel and bent",
    **MATCHED,
}
#: What part 5 tries beside labels and one teacher's soft targets at T = 20.
PAST = ("unlabelled", "jittered", "ensemble", "ensemble-jittered", "ensemble-bent", "bent-hard")
#: Before the name of a student that learns from the first 50,000 images alone, to choose among those of part 5.
HELD_OUT = "held-out-"


def waves(config: Config) -> Iterator[tuple[str, list[Network]]]:
    """Networks that can be trained at the same time, those that take longest first."""
    seeds = range(1 if config.quick else config.seeds)
    teachers = [_network(config, "large", seed) for seed in seeds]
    yield "teachers", teachers + ([_network(config, "small", seed) for seed in seeds] if 1 in config.parts else [])
    students = []
    for name in students_of(config.parts, config.quick):
        for seed in seeds[:1] if name.startswith(HELD_OUT) else seeds:
            own = tuple(t.out for t in teachers) if "ensemble" in name else (teachers[seed].out,)
            students.append(_network(config, name, seed, () if name.endswith("-hard") else own))
    yield "students", sorted(students, key=_work, reverse=True)


def _work(network: Network) -> float:
    """Roughly how long a student takes, to have no core wait for the last one."""
    return network.width * network.epochs * len(network.digits) * (1 + len(network.teachers) * (network.bend > 0))


def _network(config: Config, name: str, seed: int, teachers: Sequence[Path] = ()) -> Network:
    settings: dict[str, Any] = {**settings_of(name), "seed": seed, "teachers": tuple(teachers)}
    if config.quick:
        settings["epochs"] = max(2, settings["epochs"] // 20)
    return Network(config.data, config.out / name / f"seed-{seed}", **settings)


def students_of(parts: Sequence[int], quick: bool) -> Iterator[str]:
    """Names of all networks that are not teachers, the small one of part 1 apart."""
    temperatures = (1.0, 4.0, 20.0) if quick else TEMPERATURES
    if 1 in parts:
        yield "distilled"
    if 2 in parts:
        for width in WIDTHS:
            yield f"width-{width}-hard"
            yield from (f"width-{width}-t-{temperature:g}" for temperature in temperatures)
    if 3 in parts:
        yield "without-3"
    if 4 in parts:
        yield "only-7-8"
    if 5 in parts:
        yield from PAST
        if not quick:
            yield from (HELD_OUT + name for name in PAST if not name.endswith("-hard"))
        yield from list(MATCHED)[:: 4 if quick else 1]


def settings_of(name: str) -> dict[str, Any]:
    """Flags of a network by its name; see ``students_of``."""
    if name.startswith(HELD_OUT):
        return {**settings_of(name.removeprefix(HELD_OUT)), "held_out": 10_000}
    if name == "large":
        return {
            "width": 1200, "epochs": 100, "dropout": 0.4, "max_norm": 2.0, "jitter": 2, "learning_rate": 2e-3,
        }  # fmt: skip
    if name == "small":
        return {"width": 800, "epochs": 20}
    settings: dict[str, Any] = {"width": 800, "epochs": 60, "temperature": 20.0, "hard_weight": 0.1}
    if name in ("distilled", *PAST):
        # Not where some digits are not shown: labels say nothing of those, soft targets do.
        settings |= {"hard_weight": 0.5, "learning_rate": 4e-3}
    parts = name.split("-")
    if parts[0] == "width":
        settings |= {"width": int(parts[1]), "epochs": 40}
    if parts[0] == "matched":
        settings |= {"width": 300, "epochs": 40, "hard_weight": 0.0}
    if "t" in parts:
        settings["temperature"] = float(parts[-1])
    if "unlabelled" in parts:
        settings["hard_weight"] = 0.0
    if "jittered" in parts:
        settings["jitter"] = 2
    if "bent" in parts:
        settings |= {"jitter": 1, "bend": 1.0}
    if name == "without-3":
        settings["digits"] = tuple(digit for digit in ALL if digit != 3)
    if name == "only-7-8":
        settings["digits"] = (7, 8)
    return settings
