"""``python -m asr_kd.specialists.evaluate``: generalist, specialists and other networks, example by example."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr_kd.cli import named, run
from asr_kd.specialists import source
from asr_kd.specialists.special import folders
from asr_kd.storage import Stage, read_json, save_array, write_json

if TYPE_CHECKING:
    from asr_kd.specialists.ensemble import Ensemble
    from asr_kd.specialists.source import Block

RESULTS = "results.json"
CURVE = 7  # points of the curve of right answers against specialists


@dataclasses.dataclass(kw_only=True)
class Config(source.Config):
    """Count right answers of a generalist, of it with its specialists, and of other networks."""

    generalist: Path
    """Folder of the generalist."""
    specialists: Path
    """Folder that asr_kd.specialists.train filled."""
    others: tuple[str, ...] = ()
    """More networks, NAME=MODEL or NAME=MODEL,MODEL for an ensemble."""
    likeliest: int = 1
    """So many of the generalist's likeliest classes choose which specialists have a say."""
    role: str = "test"
    """Part of the data."""
    out: Path
    """Folder for results.json, and right.npy: (systems, examples) which answers are right."""


def main(config: Config) -> None:
    specialists = folders(config.specialists)
    others = dict(named(text, "--others") for text in config.others)
    inputs = [*config.folders, config.generalist, *specialists, *(path for paths in others.values() for path in paths)]
    stage = Stage("evaluate", config.out, config, inputs)
    if not stage.begin():
        return
    from asr_kd.models import device_and_dtype, load_model, scores
    from asr_kd.parallel import progress
    from asr_kd.specialists.ensemble import Ensemble

    _, dtype = device_and_dtype("cpu", "auto")
    ensemble = Ensemble(config.generalist, specialists, config.likeliest, dtype)
    models = {name: [load_model(path) for path in paths] for name, paths in others.items()}
    examples = source.open_source(config)
    right: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    conditional = np.zeros((len(specialists), 3), np.int64)
    numbers = sorted({round(n) for n in np.linspace(0, len(specialists), min(CURVE, len(specialists) + 1))})
    curve = np.zeros(len(numbers), np.int64)
    gap = 0.0
    for block in progress(examples.blocks(config.role), config.role, examples.count_blocks(config.role), "block"):
        answer = ensemble(block.inputs)
        gap = max(gap, answer.gap)
        found = [answer.general, answer.combined]
        for members in models.values():
            found.append(sum(scores(m, block.inputs, dtype).softmax(1) for m in members))  # type: ignore[arg-type]
        right.append(np.stack([(p.argmax(1) == block.labels).numpy() for p in found]))
        labels.append(block.labels.numpy())
        curve += [int((answer.of_first(n).argmax(1) == block.labels).sum()) for n in numbers]
        conditional += _conditional(ensemble, block, answer.general.numpy())
    together, truth = np.concatenate(right, 1), np.concatenate(labels)
    covering = ensemble.members.sum(0).numpy()[truth]
    save_array(config.out / "right.npy", together)
    systems = ["generalist", "generalist + specialists", *models]
    results = {
        "systems": {name: int(row.sum()) for name, row in zip(systems, together, strict=True)},
        "examples": len(truth),
        "by_specialists_covering": _by_covering(together[:2], covering),
        "curve": dict(zip(map(str, numbers), curve.tolist(), strict=True)),  # right with the first so many specialists
        "conditional": conditional.tolist(),  # of each specialist: its examples; generalist right, specialist right
        "gap": gap,
    }
    write_json(config.out / RESULTS, results)
    stage.finish(**{name: round(100 * float(row.mean()), 3) for name, row in zip(systems, together, strict=True)})
    for name, row in zip(systems, together, strict=True):
        print(f"{name}: {100 * row.mean():.2f} % of {len(truth):,} right")


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
