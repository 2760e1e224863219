"""The whole recipe, killed at random moments or with a full disk, and run again until it is done.

The results of the disturbed runs are compared with those of an undisturbed one in the same folder, byte for byte: every
file of the experiment except those with times in them (``judges.VOLATILE``, score.json, the report, TensorBoard's
events).
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.common.files import UNFINISHED
from drills.inputs import append_row, read_rows
from drills.judges import outputs
from drills.place import ROOT

STAGE = re.compile(r"== stage \d+: (\S+)")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The recipe in one folder.

    Attributes:
        root: folder for ``exp``, for the results of an undisturbed run (``expected``), and for the log.
        flags: of run.sh, besides --exp.
    """

    root: Path
    flags: tuple[str, ...]

    @property
    def exp(self) -> Path:
        return self.root / "exp"

    @property
    def log(self) -> Path:
        return self.root / "recipe.log"

    def start(self) -> subprocess.Popen[str]:
        command = ["bash", str(ROOT / "recipes/librispeech/run.sh"), "--exp", str(self.exp), *self.flags]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, bufsize=1,
            errors="replace", env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(self, at_stage: Callable[[int, subprocess.Popen[str]], bool] = lambda *_: False) -> Finished:
        """Run the recipe to its end, or until ``at_stage(number of stages begun, process)`` is true."""
        process, started, lines = self.start(), [], []
        assert process.stdout is not None
        with open(self.log, "a") as log:
            for line in process.stdout:
                log.write(line)
                lines.append(line)
                if match := STAGE.match(line):
                    started.append((match[1], time.monotonic()))
                    if at_stage(len(started) - 1, process):
                        break
        process.stdout.close()
        status = process.wait()
        ends = [begun for _, begun in started[1:]] + [time.monotonic()]
        stages = [(name, end - begun) for (name, begun), end in zip(started, ends, strict=True)]
        return Finished(status, "".join(lines), stages)

    def expect(self) -> tuple[list[tuple[str, float]], int]:
        """Run undisturbed, unless that has been done: the stages with their seconds, and the bytes of the experiment.

        Raises:
            UserError: it failed.
        """
        expected, record = self.root / "expected", self.root / "undisturbed.jsonl"
        if not record.exists():
            self.clear()
            done = self.run()
            if done.status:
                raise UserError(f"the undisturbed recipe failed: see {self.log}")
            shutil.rmtree(expected, ignore_errors=True)
            shutil.copytree(self.exp, expected)
            append_row(record, {"stages": done.stages, "bytes": disk_usage(self.exp)})
        row = next(read_rows(record))
        return [(name, seconds) for name, seconds in row["stages"]], row["bytes"]

    def clear(self) -> None:
        shutil.rmtree(self.exp, ignore_errors=True)

    def different(self) -> list[str]:
        """The results that differ from those of the undisturbed run."""
        ours, expected = results(self.exp), results(self.root / "expected")
        return sorted(
            name
            for name in ours.keys() | expected.keys()
            if name not in ours or name not in expected or ours[name].read_bytes() != expected[name].read_bytes()
        )

    def unfinished(self) -> list[str]:
        """Files of the experiment that are being written, or that a killed run left."""
        found = []
        for folder, folders, names in os.walk(self.exp):
            found += [os.path.join(folder, name) for name in (*folders, *names) if UNFINISHED.fullmatch(name)]
        return found


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run of the recipe: exit status, what it printed, and the seconds of each stage."""

    status: int
    output: str
    stages: list[tuple[str, float]]

    @property
    def sentence(self) -> str:
        """The one line with an error; empty if there is none or a traceback."""
        errors = [line for line in self.output.splitlines() if ": error: " in line]
        return errors[0] if len(errors) == 1 and "Traceback" not in self.output else ""


def results(exp: Path) -> dict[str, Path]:
    """The files that are compared, by their path in the experiment."""
    timed = ("report/", "score/score.json")  # with real-time factors
    return {name: path for name, path in outputs(exp).items() if not name.startswith(timed)}


def disk_usage(folder: Path) -> int:
    """Bytes that a folder takes on the disk."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


# ---------------------------------------------------------------- kills


def kill_rounds(recipe: Recipe, results_file: Path, rounds: int, kills: int, seed: int) -> list[dict[str, Any]]:
    """Run the recipe ``rounds`` times from nothing, each with ``kills`` kills; one row per round.

    The moments are drawn over the duration of an undisturbed run.  Every second kill waits for a file that is being
    written.
    """
    done = {row["round"]: row for row in read_rows(results_file) if row["seed"] == seed}
    stages, _ = recipe.expect()
    for number in range(rounds):
        if number not in done:
            rng = random.Random(f"kills/{seed}/{number}")
            recipe.clear()
            total = sum(seconds for _, seconds in stages)
            moments = sorted(rng.uniform(0, total) for _ in range(kills))
            killed = [_kill(recipe, stages, moment, i % 2 == 1) for i, moment in enumerate(moments)]
            last = recipe.run()
            different = recipe.different()
            done[number] = {
                "seed": seed, "round": number, "kills": [name for name, _ in killed],
                "within writes": sum(writing for _, writing in killed), "status": last.status, "different": different,
            }  # fmt: skip
            append_row(results_file, done[number])
            print(f"kills, round {number + 1} of {rounds}: {len(different)} results differ", flush=True)
    return [done[number] for number in range(rounds)]


def _kill(recipe: Recipe, stages: list[tuple[str, float]], moment: float, in_write: bool) -> tuple[str, bool]:
    """Run until ``moment`` of an undisturbed run, and kill: the stage, and whether something was being written."""
    number = 0
    while number + 1 < len(stages) and moment >= stages[number][1]:
        moment -= stages[number][1]
        number += 1
    before = set(recipe.unfinished())

    def at_stage(begun: int, process: subprocess.Popen[str]) -> bool:
        if begun < number:
            return False
        deadline = time.monotonic() + moment + 20
        time.sleep(moment)
        while in_write and time.monotonic() < deadline and process.poll() is None:
            if set(recipe.unfinished()) - before:
                break
        os.killpg(process.pid, signal.SIGKILL)
        return True

    recipe.run(at_stage)
    return stages[number][0], bool(set(recipe.unfinished()) - before)


# ---------------------------------------------------------------- full disks


class Disk:
    """A disk of some bytes at the folder of the experiment: a tmpfs, for which mounting must be allowed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> Disk:
        self.folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(self.folder))
        return self

    def resize(self, size: int) -> None:
        _run("mount", "-o", f"remount,size={size}", str(self.folder))

    def __exit__(self, *_: object) -> None:
        _run("umount", "-l", str(self.folder))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(command)} failed ({done.stderr.strip()}): run as a user who may mount")


def disk_rounds(recipe: Recipe, results_file: Path, rounds: int, moments: int, seed: int) -> list[dict[str, Any]]:
    """Run the recipe ``rounds`` times from nothing on a disk that is too small, and grows whenever it is full.

    Sizes are drawn over those of an undisturbed experiment.  Each row has the errors of its ``moments`` full disks.
    """
    done = {row["round"]: row for row in read_rows(results_file) if row["seed"] == seed}
    _, size = recipe.expect()
    for number in range(rounds):
        if number in done:
            continue
        rng = random.Random(f"disk/{seed}/{number}")
        recipe.clear()
        ended = []
        with Disk(recipe.exp) as disk:
            for share in sorted(rng.uniform(0.01, 0.97) for _ in range(moments)):
                disk.resize(int(share * size) // 4096 * 4096)
                finished = recipe.run()
                ended.append({"share": round(share, 3), "status": finished.status, "error": finished.sentence,
                              "stage": finished.stages[-1][0] if finished.stages else ""})  # fmt: skip
            disk.resize(4 * size + (64 << 20))
            last = recipe.run()
            different = recipe.different()
        done[number] = {"seed": seed, "round": number, "full": ended, "status": last.status, "different": different}
        append_row(results_file, done[number])
        print(f"full disks, round {number + 1} of {rounds}: {len(different)} results differ", flush=True)
    return [done[number] for number in range(rounds)]
