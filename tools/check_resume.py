"""Checks that a recipe killed once in every stage ends with the same results as an uninterrupted one.

python tools/check_resume.py --out /tmp/resume
"""

from __future__ import annotations

import dataclasses
import filecmp
import os
import random
import re
import signal
import subprocess
import time
from pathlib import Path

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError

ROOT = Path(__file__).parents[1]
STAGE = re.compile(r"== stage \d+: (\S+)")

#: Files that are compared byte for byte.  Reports contain times, and manifests the name of their folder.
RESULTS = (
    "graph/HCLG.fst",
    "gmm/tri.mdl",
    "gmm/tree",
    "soft_targets/shard-*/*.npy",
    "**/model.safetensors",
    "**/tuned.json",
    "**/hyp_*.tsv",
    "**/accuracy.json",
)


@dataclasses.dataclass
class Config:
    """Run the recipe twice, the second time with a kill in every stage; exit with 1 unless the results agree."""

    out: Path
    """Folder for both experiments."""
    conf: Path = ROOT / "tests/tiny.yaml"
    """Configuration of the recipe."""
    teachers: int = 2
    """Number of networks in the ensemble."""
    seed: int = 0
    """Seed of the random times at which the stages are killed."""


def recipe(config: Config, name: str, kill_in: int | None = None, after: float = 0.0) -> list[tuple[str, float]]:
    """Run the recipe; with ``kill_in``, kill all its processes ``after`` seconds into the stage of that number.

    Returns:
        The names of the stages that started, and the seconds until the next stage started.
    """
    command = ["bash", str(ROOT / "recipes/librispeech/run.sh"), "--conf", str(config.conf)]
    command += ["--exp", str(config.out / name), "--teachers", str(config.teachers)]
    started: list[tuple[str, float]] = []
    with open(config.out / f"{name}.log", "a") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True, bufsize=1
        )
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if match := STAGE.match(line):
                started.append((match[1], time.monotonic()))
                if len(started) - 1 == kill_in:
                    time.sleep(after)
                    os.killpg(process.pid, signal.SIGKILL)
                    break
        status = process.wait()
    if kill_in is None and status:
        raise UserError(f"the recipe failed: see {config.out / name}.log")
    ends = [start for _, start in started[1:]] + [time.monotonic()]
    return [(stage, end - start) for (stage, start), end in zip(started, ends, strict=True)]


def results(folder: Path) -> dict[str, Path]:
    """The files to compare, by their path in ``folder``."""
    files: dict[str, Path] = {}
    for pattern in RESULTS:
        matches = sorted(folder.glob(pattern))
        if not matches:
            raise UserError(f"{folder} has no {pattern}: adapt RESULTS in {__file__} to the recipe")
        files |= {str(path.relative_to(folder)): path for path in matches}
    return files


def main(config: Config) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(config.seed)
    stages = recipe(config, "uninterrupted")
    for number, (stage, seconds) in enumerate(stages):
        after = rng.uniform(0, seconds)
        recipe(config, "killed", number, after)
        print(f"killed {after:.1f} s into {stage}, stage {number + 1} of {len(stages)}", flush=True)
    recipe(config, "killed")
    expected, actual = results(config.out / "uninterrupted"), results(config.out / "killed")
    different = sorted(
        name
        for name in expected.keys() | actual.keys()
        if not (name in expected and name in actual and filecmp.cmp(expected[name], actual[name], shallow=False))
    )
    print(f"{len(different)} of {len(expected)} files differ after {len(stages)} kills")
    if different:
        raise UserError(f"the results differ: compare {', '.join(different)}")


if __name__ == "__main__":
    run(Config, main)
