"""``python -m asr_kd.specialists.evaluate``: measures a generalist with its specialists."""

from __future__ import annotations

import numpy as np

from asr_kd.common.cli import named, run
from asr_kd.common.storage import Stage, save_array, write_json
from asr_kd.specialists.evaluate.config import Config


def main(config: Config) -> None:
    from asr_kd.specialists.special import folders

    specialists = folders(config.specialists)
    others = dict(named(text, "--others") for text in config.others)
    inputs = [*config.folders, *specialists, *(path for paths in others.values() for path in paths)]
    stage = Stage("evaluate", config.out, config, inputs)
    if not stage.begin():
        return
    from asr_kd.common.progress import progress
    from asr_kd.models.checkpoints import load_model
    from asr_kd.models.precision import device_and_dtype
    from asr_kd.specialists.ensemble import Ensemble

    _, dtype = device_and_dtype("cpu", "auto")
    ensemble = Ensemble(config.generalist, specialists, config.likeliest, dtype)
    from asr_kd.specialists.evaluate.measure import _Tally

    tally = _Tally(ensemble, {name: [load_model(path) for path in paths] for name, paths in others.items()})
    from asr_kd.specialists import source

    examples = source.open_source(config)
    count = examples.count_blocks(config.split)
    for block in progress(examples.blocks(config.split), config.split, count, "block"):
        tally.add(block)
    right, truth = np.concatenate(tally.right, 1), np.concatenate(tally.labels)
    sizes = [len(labels) for labels in tally.labels]
    save_array(config.out / "right.npy", right)
    units = np.repeat(np.arange(len(sizes)), sizes) if examples.together else np.arange(len(truth))
    save_array(config.out / "units.npy", units)
    systems = dict(zip(["generalist", "generalist + specialists", *others], right, strict=True))
    from asr_kd.specialists.evaluate.measure import _by_covering

    results = {
        "systems": {name: int(row.sum()) for name, row in systems.items()},
        "examples": len(truth),
        "by_specialists_covering": _by_covering(right[:2], ensemble.members.sum(0).numpy()[truth]),
        # Right answers with the first so many specialists.
        "curve": dict(zip(map(str, tally.numbers), tally.curve.tolist(), strict=True)),
        "conditional": tally.conditional.tolist(),  # of each specialist: its examples; generalist and specialist right
        "gap": tally.gap,
    }
    from asr_kd.specialists.evaluate.measure import RESULTS

    write_json(config.out / RESULTS, results)
    stage.finish(**{name: round(100 * float(row.mean()), 3) for name, row in systems.items()})
    for name, row in systems.items():
        print(f"{name}: {100 * row.mean():.2f} % of {len(truth):,} right")


if __name__ == "__main__":
    run(Config, main)
