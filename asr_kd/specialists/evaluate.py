"""``python -m asr_kd.specialists.evaluate``: generalist, specialists and other networks, example by example."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr_kd.cli import named, run
from asr_kd.specialists import source
from asr_kd.specialists.special import folders
from asr_kd.storage import Stage, read_json, save_array, write_json

if TYPE_CHECKING:
    from asr_kd.models import AcousticModel
    from asr_kd.specialists.ensemble import Ensemble
    from asr_kd.specialists.source import Block

RESULTS = "results.json"
CURVE = 7  # points of the curve of right answers against specialists


@dataclasses.dataclass(kw_only=True)
class Config(source.Config):
    """Count right answers of a generalist, of it with its specialists, and of other networks."""

    specialists: Path
    """Folder that asr_kd.specialists.train filled."""
    others: tuple[str, ...] = ()
    """More networks, NAME=MODEL or NAME=MODEL,MODEL for an ensemble."""
    likeliest: int = 1
    """So many of the generalist's likeliest classes choose which specialists have a say."""
    role: str = "test"
    """Part of the data."""
    out: Path
    """Folder for results.json; right.npy: (systems, examples) which answers are right; and units.npy: which examples
    belong together, such as the frames of an utterance."""


def main(config: Config) -> None:
    specialists = folders(config.specialists)
    others = dict(named(text, "--others") for text in config.others)
    inputs = [*config.folders, *specialists, *(path for paths in others.values() for path in paths)]
    stage = Stage("evaluate", config.out, config, inputs)
    if not stage.begin():
        return
    from asr_kd.models import device_and_dtype, load_model
    from asr_kd.parallel import progress
    from asr_kd.specialists.ensemble import Ensemble

    _, dtype = device_and_dtype("cpu", "auto")
    ensemble = Ensemble(config.generalist, specialists, config.likeliest, dtype)
    tally = _Tally(ensemble, {name: [load_model(path) for path in paths] for name, paths in others.items()})
    examples = source.open_source(config)
    count = examples.count_blocks(config.role)
    for block in progress(examples.blocks(config.role), config.role, count, "block"):
        tally.add(block)
    right, truth = np.concatenate(tally.right, 1), np.concatenate(tally.labels)
    sizes = [len(labels) for labels in tally.labels]
    save_array(config.out / "right.npy", right)
    units = np.repeat(np.arange(len(sizes)), sizes) if examples.together else np.arange(len(truth))
    save_array(config.out / "units.npy", units)
    systems = dict(zip(["generalist", "generalist + specialists", *others], right, strict=True))
    results = {
        "systems": {name: int(row.sum()) for name, row in systems.items()},
        "examples": len(truth),
        "by_specialists_covering": _by_covering(right[:2], ensemble.members.sum(0).numpy()[truth]),
        # Right answers with the first so many specialists.
        "curve": dict(zip(map(str, tally.numbers), tally.curve.tolist(), strict=True)),
        "conditional": tally.conditional.tolist(),  # of each specialist: its examples; generalist and specialist right
        "gap": tally.gap,
    }
    write_json(config.out / RESULTS, results)
    stage.finish(**{name: round(100 * float(row.mean()), 3) for name, row in systems.items()})
    for name, row in systems.items():
        print(f"{name}: {100 * row.mean():.2f} % of {len(truth):,} right")


class _Tally:
    """Counts over blocks of examples.

    Args:
        ensemble: generalist and specialists.
        others: the members of each other system.
    """

    def __init__(self, ensemble: Ensemble, others: Mapping[str, Sequence[AcousticModel]]) -> None:
        self.ensemble, self.others = ensemble, others
        specialists = len(ensemble.specialists)
        self.right: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []
        self.numbers = sorted({round(n) for n in np.linspace(0, specialists, min(CURVE, specialists + 1))})
        self.curve = np.zeros(len(self.numbers), np.int64)
        self.conditional = np.zeros((specialists, 3), np.int64)
        self.gap = 0.0

    def add(self, block: Block) -> None:
        from asr_kd.losses import average_distributions
        from asr_kd.models import scores

        answer = self.ensemble(block.inputs)
        self.gap = max(self.gap, answer.gap)
        found = [answer.general, answer.combined]
        for members in self.others.values():
            logits = [scores(model, block.inputs, self.ensemble.dtype) for model in members]
            found.append(average_distributions(logits))
        self.right.append(np.stack([(p.argmax(1) == block.labels).numpy() for p in found]))
        self.labels.append(block.labels.numpy())
        self.curve += [int((answer.of_first(n).argmax(1) == block.labels).sum()) for n in self.numbers]
        self.conditional += _conditional(self.ensemble, block, answer.general.numpy())


def _by_covering(right: np.ndarray, covering: np.ndarray) -> list[dict[str, int]]:
    """The paper's table 4: right answers by how many specialists cover the correct class."""
    table = []
    for number in np.unique(covering):
        here = covering == number
        general, combined = (int(row[here].sum()) for row in right)
        table.append(
            {"specialists": int(number), "examples": int(here.sum()), "general": general, "combined": combined}
        )
    return table


def _conditional(ensemble: Ensemble, block: Block, general: np.ndarray) -> np.ndarray:
    """The paper's table 3: of examples of a specialist's classes, when only these may be answered: (M, 3) examples,
    right answers of the generalist and of the specialist."""
    counts = np.zeros((len(ensemble.specialists), 3), np.int64)
    for number, tensor in enumerate(ensemble.classes):
        classes = tensor.numpy()
        here = np.isin(block.labels.numpy(), classes)
        if here.any():
            wanted = np.searchsorted(classes, block.labels.numpy()[here])
            said = ensemble.opinion(number, block.inputs[here]).probabilities[:, :-1].argmax(1).numpy()
            counts[number] = (
                here.sum(), (general[here][:, classes].argmax(1) == wanted).sum(), (said == wanted).sum()
            )  # fmt: skip
    return counts


def load_results(folder: Path) -> dict[str, Any]:
    """What ``main`` wrote."""
    return read_json(folder / RESULTS)


if __name__ == "__main__":
    run(Config, main)
