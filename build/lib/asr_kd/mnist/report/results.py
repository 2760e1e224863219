"""Results of the study: errors by network and seed, and the effect of bias corrections."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from asr_kd.common.errors import UserError
from asr_kd.common.storage import load_array, stage_figures
from asr_kd.mnist.digits.dataset import Digits
from asr_kd.mnist.report.biases import Correction, correct
from asr_kd.mnist.study.networks import HELD_OUT, trained_seeds
from asr_kd.mnist.training import TEST_LOGITS, load_logits

#: Networks whose biases are corrected, with the digits concerned.
CORRECTED = {"without-3": (3,), "only-7-8": (7, 8)}


@dataclasses.dataclass(frozen=True)
class Errors:
    """Errors of one kind of network.

    Attributes:
        parameters: number of weights and biases.
        test: errors on the 10,000 test images, by seed.
        train: errors on the 60,000 training images, whichever of them the network was trained on, by seed.
        held_out: validation errors on 10,000 images of a network that was trained on the other 50,000 in the same way,
            if there is one.
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
        networks: errors by the network's name (see asr_kd.mnist.study.networks).
        corrections: bias corrections by the network's name and by seed.
    """

    networks: dict[str, Errors]
    corrections: dict[str, list[Correction]]

    @property
    def gap_closed(self) -> float | None:
        """Fraction of the gap in test errors between the small and the large network that the distilled one closes."""
        if not {"large", "small", "distilled"} <= set(self.networks):
            return None
        large, small, distilled = (self.networks[name].median for name in ("large", "small", "distilled"))
        return (small - distilled) / (small - large) if small != large else None

    @property
    def best_extension(self) -> str | None:
        """The network of part 5 with the fewest validation errors."""
        counts = {name: e.held_out for name, e in self.networks.items() if e.held_out is not None}
        return min(counts, key=lambda name: counts[name]) if counts else None

    def by_width(self) -> dict[int, dict[float | None, Errors]]:
        """Return the networks of part 2: hidden units (descending) → temperature (None: labels only) → errors."""
        widths: dict[int, dict[float | None, Errors]] = {}
        for name, errors in self.networks.items():
            if name.startswith("width-"):
                _, width, *rest = name.split("-")  # width-300-hard, width-300-t-2.5
                widths.setdefault(int(width), {})[float(rest[1]) if rest[0] == "t" else None] = errors
        return dict(sorted(widths.items(), reverse=True))


def collect(folder: Path, train: Digits, test: Digits) -> Results:
    """Return the results of every finished network in ``folder``.

    Raises:
        UserError: there is none.
    """
    networks, corrections, held_out = {}, {}, {}
    for kind in sorted(folder.glob("*")):
        seeds = trained_seeds(kind)
        if not seeds:
            continue
        figures = [stage_figures(seed) for seed in seeds]
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
    test_logits = load_array(folder / TEST_LOGITS)
    return correct(digits, load_logits(folder, train), train.labels, test_logits, test.labels)
