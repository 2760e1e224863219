"""Does the recipe, killed in every one of its stages, end with the same results as one that was left alone?

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

#: Compared byte for byte; reports hold times, and manifests the name of their folder.
RESULTS = (
    "graph/HCLG.fst",
    "gmm/tri.mdl",
    "gmm/tree",
    "soft_targets/shard-*/*.npy",
    "*/seed-*/model.safetensors",
    "decode/*/tuned.json",
    "decode/*/hyp_*.tsv",
    "accuracy/*/accuracy.json",
)


@dataclasses.dataclass
class Config:
    """Run the recipe twice, the second time killed once in every stage; exits with 1 unless the results agree."""

    out: Path
    """Folder for both experiments."""
    conf: Path = ROOT / "tests/tiny.yaml"
    """Configuration of the recipe."""
    teachers: int = 2
    """Networks in the ensemble."""
    seed: int = 0
    """Decides how far into a stage it is killed."""


def recipe(config: Config, name: str, kill_in: int | None = None, after: float = 0.0) -> list[tuple[str, float]]:
    """Run the recipe, or kill it and all its processes ``after`` seconds of its stage number ``kill_in``.

    Returns:
        Names of the stages that began, and the seconds until the next one did.
    """
    command = ["bash", str(ROOT / "recipes/librispeech/run.sh"), "--conf", str(config.conf)]
    command += ["--exp", str(config.out / name), "--teachers", str(config.teachers)]
    begun: list[tuple[str, float]] = []
    with open(config.out / f"{name}.log", "a") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True, bufsize=1
        )
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if found := STAGE.match(line):
                begun.append((found[1], time.monotonic()))
                if len(begun) - 1 == kill_in:
                    time.sleep(after)
                    os.killpg(process.pid, signal.SIGKILL)
                    break
        status = process.wait()
    if kill_in is None and status:
        raise UserError(f"the recipe failed: see {config.out / name}.log")
    ends = [at for _, at in begun[1:]] + [time.monotonic()]
    return [(stage, end - at) for (stage, at), end in zip(begun, ends, strict=True)]


def results(folder: Path) -> dict[str, Path]:
    return {str(path.relative_to(folder)): path for pattern in RESULTS for path in sorted(folder.glob(pattern))}


def main(config: Config) -> None:
    config.out.mkdir(parents=True, exist_ok=True)
    draw = random.Random(config.seed)
    stages = recipe(config, "whole")
    for number, (stage, seconds) in enumerate(stages):
        after = draw.uniform(0, seconds)
        recipe(config, "killed", number, after)
        print(f"killed {after:.1f} s into {stage}, stage {number + 1} of {len(stages)}", flush=True)
    recipe(config, "killed")
    expected, found = results(config.out / "whole"), results(config.out / "killed")
    different = [name for name in expected if name not in found or not filecmp.cmp(expected[name], found[name], False)]
    print(f"{len(expected) - len(different)} of {len(expected)} files are the same after {len(stages)} kills")
    if different or len(found) != len(expected):
        raise UserError(f"results differ: {', '.join(different) or 'files too many'}")


if __name__ == "__main__":
    run(Config, main)
