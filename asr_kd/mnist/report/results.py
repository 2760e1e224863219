"""What the networks of the study did: errors by network and seed, and what moved biases change."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.storage import MARK, read_json
from asr_kd.mnist.biases import Correction, correct
from asr_kd.mnist.digits.read import Digits
from asr_kd.mnist.stage import finished
from asr_kd.mnist.study.networks import HELD_OUT
from asr_kd.mnist.training import TEST_LOGITS, load_logits

#: Digits whose biases move, by the network they are moved in.
CORRECTED = {"without-3": (3,), "only-7-8": (7, 8)}


@dataclasses.dataclass(frozen=True)
class Errors:
    """Errors of one kind of network, a figure a seed.

    Attributes:
        parameters: weights and biases.
        test: of the 10,000 test digits.
        train: of the 60,000 training digits, whichever of them the network saw.
        held_out: of 10,000 digits, by a network that learnt from the other 50,000 in the same way, if there is one.
    """

    parameters: int
    test: list[int]
    train: list[int]
    held_out: int | None = None

    @property
    def median(self) -> float:
        return median(self.test)


@dataclasses.dataclass
class Results:
    """Everything that the report shows.

    Attributes:
        networks: by name (asr_kd.mnist.study).
        corrections: by name, one a seed.
        gap_closed: share of the errors between the small and the large network that the distilled one avoids.
    """

    networks: dict[str, Errors]
    corrections: dict[str, list[Correction]]

    @property
    def gap_closed(self) -> float | None:
        if not {"large", "small", "distilled"} <= set(self.networks):
            return None
        large, small, distilled = (self.networks[name].median for name in ("large", "small", "distilled"))
        return (small - distilled) / (small - large) if small != large else None

    @property
    def best_past(self) -> str | None:
        """Of the networks of part 5, the one with the fewest errors on digits held out."""
        counts = {name: e.held_out for name, e in self.networks.items() if e.held_out is not None}
        return min(counts, key=lambda name: counts[name]) if counts else None

    def by_width(self) -> dict[int, dict[float | None, Errors]]:
        """Networks of part 2: hidden units (the most first) -> temperature (None: labels alone) -> errors."""
        found: dict[int, dict[float | None, Errors]] = {}
        for name, errors in self.networks.items():
            if name.startswith("width-"):
                _, width, *rest = name.split("-")  # width-300-hard, width-300-t-2.5
                found.setdefault(int(width), {})[float(rest[1]) if rest[0] == "t" else None] = errors
        return dict(sorted(found.items(), reverse=True))


def collect(folder: Path, train: Digits, test: Digits) -> Results:
    """Read every finished network in ``folder``.

    Raises:
        UserError: there is none.
    """
    networks, corrections, held_out = {}, {}, {}
    for kind in sorted(folder.glob("*")):
        seeds = finished(kind)
        if not seeds:
            continue
        figures = [read_json(seed / MARK)["figures"] for seed in seeds]
        if kind.name.startswith(HELD_OUT):
            held_out[kind.name.removeprefix(HELD_OUT)] = figures[0]["held_out_errors"]
            continue
        networks[kind.name] = Errors(
            figures[0]["parameters"], [f["test_errors"] for f in figures], [f["train_errors"] for f in figures]
        )
        if kind.name in CORRECTED:
            corrections[kind.name] = [_correct(seed, CORRECTED[kind.name], train, test) for seed in seeds]
    if not networks:
        raise UserError(f"{folder} holds no finished network: run python -m asr_kd.mnist.study first")
    for name in held_out.keys() & networks.keys():
        networks[name] = dataclasses.replace(networks[name], held_out=held_out[name])
    return Results(networks, corrections)


def _correct(folder: Path, digits: Sequence[int], train: Digits, test: Digits) -> Correction:
    test_logits = np.load(folder / TEST_LOGITS, allow_pickle=False)
    return correct(digits, load_logits(folder, train), train.labels, test_logits, test.labels)
