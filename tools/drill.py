"""What becomes of damaged inputs, kills, full disks, lost workers and too little memory: one table.

    python tools/drill.py --out /tmp/drill

It takes about an hour on two cores, and the same command resumes: results are kept in OUT as JSON lines.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from bench import table
from drills import inputs, memory, recipe, workers
from drills.place import ROOT

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError

Part = Literal["inputs", "kills", "disks", "workers", "memory"]


@dataclasses.dataclass
class Config:
    """Damage inputs, kill the recipe, fill its disk, stop workers, halve the memory; exit with 1 if anything is wrong.

    Full disks need a user who may mount a tmpfs.
    """

    out: Path
    """Folder for experiments and results; a few hundred MB."""
    parts: tuple[Part, ...] = ("inputs", "kills", "disks", "workers", "memory")
    """What to do."""
    cases: int = 1000
    """Damaged inputs."""
    kills: int = 20
    """Kills of the recipe, in rounds of 5."""
    disks: int = 10
    """Full disks, in rounds of 5."""
    seed: int = 0
    """Seed of all damage and of all moments."""
    jobs: int = 2
    """Processes that feed damaged inputs."""
    exp: Path | None = None
    """A finished experiment to damage, which is restored after each case; default: small ones, made in OUT."""
    conf: Path = ROOT / "tests/tiny.yaml"
    """Configuration of the recipe that is killed and whose disk is full."""


PER_ROUND = 5


def damaged_inputs(config: Config) -> tuple[str, list[str]]:
    """The table of the damaged inputs, and what is wrong."""
    rows = inputs.run_cases(config.out, config.cases, config.seed, config.jobs, config.exp)
    faults = [
        f"case {row['case']} ({row['file']}, {row['damage']}): {row['outcome']}"
        for row in rows
        if row["outcome"] not in ("used", "listed", "refused")
    ]
    longest, largest = max(row["seconds"] for row in rows), max(row["peak"] for row in rows)
    note = f"longest case {longest:.0f} s, largest process {largest} MiB"
    return f"{table(inputs.table(rows))}\n\n{note}", faults


def kills(config: Config) -> tuple[str, list[str]]:
    """The table of the kills, and what is wrong."""
    one = _recipe(config)
    rounds = recipe.kill_rounds(one, config.out / "kills.jsonl", config.kills // PER_ROUND, PER_ROUND, config.seed)
    rows = [
        {
            "round": row["round"] + 1, "killed in": ", ".join(row["kills"]), "within writes": row["within writes"],
            "results that differ": len(row["different"]),
        }
        for row in rounds
    ]  # fmt: skip
    return table(rows) + f"\n\n{_compared(one)}", _differ("kills", rounds)


def disks(config: Config) -> tuple[str, list[str]]:
    """The table of the full disks, and what is wrong."""
    one = _recipe(config)
    rounds = recipe.disk_rounds(one, config.out / "disks.jsonl", config.disks // PER_ROUND, PER_ROUND, config.seed)
    rows, faults = [], _differ("full disks", rounds)
    for row in rounds:
        for full in row["full"]:
            rows.append(
                {
                    "round": row["round"] + 1, "disk / experiment": full["share"], "full in": full["stage"],
                    "error": full["error"].partition(": error: ")[2] or "–",
                    "results that differ at last": len(row["different"]),
                }
            )  # fmt: skip
            if full["status"] and not full["error"]:
                faults.append(f"a disk of {full['share']:.1%}: no sentence")
    return table(rows) + f"\n\n{_compared(one)}", faults


def _recipe(config: Config) -> recipe.Recipe:
    folder = config.out / "recipe"
    folder.mkdir(exist_ok=True)
    return recipe.Recipe(folder, ("--conf", str(config.conf), "--teachers", "2"))


def _compared(one: recipe.Recipe) -> str:
    return f"{len(recipe.results(one.root / 'expected'))} files compared"


def _differ(what: str, rounds: Sequence[dict[str, Any]]) -> list[str]:
    faults = [f"{what}, round {row['round'] + 1}: {name} differs" for row in rounds for name in row["different"]]
    return faults + [f"{what}, round {row['round'] + 1}: the last run failed" for row in rounds if row["status"]]


def lost_workers(config: Config) -> tuple[str, list[str]]:
    """The table of killed, stopped and slow workers, and what is wrong."""
    rows = workers.run_all(
        inputs.make_place(config.out / "small", config.exp), config.out / "workers.jsonl", config.seed
    )
    faults = [
        f"{row['workers']} worker of {row['stage']} {mode}: {row[mode]}"
        for row in rows
        for mode in workers.MODES
        if not row[mode].endswith("same")
    ]
    return table([{key: row[key] for key in ("stage", "workers", *workers.MODES)} for row in rows]), faults


def little_memory(config: Config) -> tuple[str, list[str]]:
    """The table of the limits of memory, and what is wrong."""
    rows = memory.run_all(inputs.make_place(config.out / "small", config.exp), config.out / "memory.jsonl")
    shares = [f"{share:.0%}" for share in memory.SHARES]
    faults = [f"{row['stage']} at {s}: {row[s]}" for row in rows for s in shares if not row[s].endswith("same")]
    return table(rows), faults


DRILLS = {
    "inputs": ("Damaged inputs", damaged_inputs), "kills": ("Kills", kills), "disks": ("Full disks", disks),
    "workers": ("Workers", lost_workers), "memory": ("Limits of address space", little_memory),
}  # fmt: skip


def main(config: Config) -> None:
    config.out = config.out.resolve()
    config.out.mkdir(parents=True, exist_ok=True)
    config.exp = config.exp and config.exp.resolve()
    faults: list[str] = []
    report: list[str] = []
    for title, drill in (DRILLS[part] for part in config.parts):
        text, found = drill(config)
        report.append(f"### {title}\n\n{text}\n")
        print(f"\n{report[-1]}", flush=True)
        faults += found
    (config.out / "table.md").write_text("\n".join(report))
    if faults:
        print("\n".join(faults), file=sys.stderr)
        raise UserError(f"{len(faults)} faults: see above, and OUT/*.jsonl")


if __name__ == "__main__":
    run(Config, main)
