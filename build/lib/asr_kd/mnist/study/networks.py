"""The networks of the paper's section 3 and of its extensions, by name."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from asr_kd.common.storage import is_finished
from asr_kd.mnist.config import Config as Network
from asr_kd.mnist.study.config import Config

WIDTHS = (300, 100, 30)
TEMPERATURES = (1.0, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0, 12.0, 20.0, 40.0)
#: Networks trained on soft targets only, from low temperatures to the limit of high ones, with their labels.
SOFT_ONLY = {
    "matched-t-1": "T = 1", "matched-t-4": "T = 4", "matched-t-20": "T = 20", "matched-t-100": "T = 100",
    "matched-t-inf": "logit matching",
}  # fmt: skip
#: Labels of networks in tables and figures.
LABELS = {
    "large": "2×1200, dropout, max-norm, shifts up to 2 pixels",
    "small": "2×800, labels only",
    "distilled": "2×800, distilled, T = 20",
    "without-3": "2×800, distilled without any three",
    "only-7-8": "2×800, distilled on sevens and eights only",
    "unlabelled": "soft targets only",
    "jittered": "shifts up to 2 pixels",
    "ensemble": "all large networks as teachers",
    "ensemble-jittered": "all large networks, shifts up to 2 pixels",
    "ensemble-bent": "all large networks, shifts up to 1 pixel, elastic distortion",
    "bent-hard": "labels only, shifts up to 1 pixel, elastic distortion",
    **SOFT_ONLY,
}
#: Part 5: variants of the distilled network.
EXTENSIONS = ("unlabelled", "jittered", "ensemble", "ensemble-jittered", "ensemble-bent", "bent-hard")
#: Prefix of an extension that is trained on the first 50,000 images and validated on the others.
HELD_OUT = "held-out-"


def phases(config: Config) -> Iterator[tuple[str, list[Network]]]:
    """Yield groups of networks that can be trained at the same time, with a title; the slowest networks first."""
    seeds = range(1 if config.quick else config.seeds)
    teachers = [_network(config, "large", seed) for seed in seeds]
    yield "teachers", teachers + ([_network(config, "small", seed) for seed in seeds] if 1 in config.parts else [])
    students = []
    for name in student_names(config.parts, config.quick):
        for seed in seeds[:1] if name.startswith(HELD_OUT) else seeds:
            folders = tuple(t.out for t in teachers) if "ensemble" in name else (teachers[seed].out,)
            students.append(_network(config, name, seed, () if name.endswith("-hard") else folders))
    yield "students", sorted(students, key=_cost, reverse=True)


def trained_seeds(folder: Path) -> list[Path]:
    """Return the folders of a network's seeds that are finished."""
    seeds = sorted(folder.glob("seed-*"), key=lambda path: int(path.name.removeprefix("seed-")))
    return [seed for seed in seeds if is_finished(seed)]


def _cost(network: Network) -> float:
    """Return an estimate of a student's training time, so that no core has to wait for the last one."""
    return network.width * network.epochs * len(network.digits) * (1 + len(network.teachers) * (network.bend > 0))


def _network(config: Config, name: str, seed: int, teachers: Sequence[Path] = ()) -> Network:
    settings: dict[str, Any] = {**network_settings(name), "seed": seed, "teachers": tuple(teachers)}
    if config.quick:
        settings["epochs"] = max(2, settings["epochs"] // 20)
    return Network(config.data, config.out / name / f"seed-{seed}", **settings)


def student_names(parts: Sequence[int], quick: bool) -> Iterator[str]:
    """Yield the names of all networks but the large and the small ones."""
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
        yield from EXTENSIONS
        if not quick:
            yield from (HELD_OUT + name for name in EXTENSIONS if not name.endswith("-hard"))
        yield from list(SOFT_ONLY)[:: 4 if quick else 1]


def network_settings(name: str) -> dict[str, Any]:
    """Return the flags of a network by its name."""
    if name.startswith(HELD_OUT):
        return {**network_settings(name.removeprefix(HELD_OUT)), "held_out": 10_000}
    if name == "large":
        return {
            "width": 1200, "epochs": 100, "dropout": 0.4, "max_norm": 2.0, "jitter": 2, "learning_rate": 2e-3,
        }  # fmt: skip
    if name == "small":
        return {"width": 800, "epochs": 20}
    settings: dict[str, Any] = {"width": 800, "epochs": 60, "temperature": 20.0, "hard_weight": 0.1}
    if name in ("distilled", *EXTENSIONS):
        # Students without some digits keep the lower hard weight: they learn these digits from soft targets only.
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
        settings["digits"] = tuple(digit for digit in range(10) if digit != 3)
    if name == "only-7-8":
        settings["digits"] = (7, 8)
    return settings
