"""Speed of one network trained by several processes, of one thread each, against one process of one thread.

    python tools/bench_ranks.py --features EXP/features --cuts EXP/gmm --out ranks.json

Each trains the same batches of the same streams for an epoch; the first updates count like all others.  As many
networks, one a process, that are trained at the same time show what these cores can give at most.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import bench
import tyro

ROOT = Path(__file__).parents[1]


@dataclasses.dataclass
class Config:
    """Benchmark torchrun."""

    features: Path
    """Features folder."""
    cuts: Path
    """Folder with cuts that carry senones."""
    processes: int = 2
    """Number of processes: each trains a network, then all share one network's frames, then its weights."""
    presets: tuple[str, ...] = ("medium", "large", "paper")
    """Networks."""
    batches: tuple[int, ...] = (1024, 8192)
    """Frames a batch, of all processes."""
    out: Path | None = None
    """Also write the figures as JSON."""


def main(config: Config) -> None:
    rows = []
    for preset, batch in itertools.product(config.presets, config.batches):
        single: float | None = None
        for processes, share in ((1, "–"), *((config.processes, share) for share in ("nothing", "frames", "weights"))):
            logs = measure(config, preset, batch, processes, share)
            speed = sum(log["frames_per_second"] for log in logs)
            single = single or speed
            rows.append(
                {
                    "network": preset,
                    "batch": batch,
                    "processes": processes,
                    "share": share,
                    "frames/s": speed,
                    "times one": speed / single,
                    "dev frames right, %": logs[0]["dev_accuracy"],
                }
            )
    print(f"{bench.machine('cpu')}\n")
    print(bench.table(rows))
    bench.write(config.out, {"machine": bench.machine("cpu"), "rows": rows})


def measure(config: Config, preset: str, batch: int, processes: int, share: str) -> list[dict[str, Any]]:
    """The log of one epoch; where they share nothing, of each network."""
    cores = sorted(os.sched_getaffinity(0))[:processes]  # a network alone would take all of them as threads
    groups = [[core] for core in cores] if share == "nothing" else [cores]
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(number) for number in range(len(groups))]
        running = []
        for folder, group in zip(folders, groups, strict=True):
            command = ["taskset", "--cpu-list", ",".join(map(str, group)), sys.executable]
            if len(group) > 1:
                command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(len(group))]
            flags = {
                "features": config.features, "cuts": config.cuts, "out": folder, "preset": preset, "epochs": 1,
                "batch-size": batch, "streams": config.processes, "device": "cpu",
            }  # fmt: skip
            command += ["-m", "asr_kd.train", *(text for n, value in flags.items() for text in (f"--{n}", str(value)))]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            command += ["--tensor-parallel"] * (share == "weights")
            running.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        if any(process.wait() for process in running):
            raise SystemExit("training failed: see above")
        logs = [(folder / "seed-0" / "log.jsonl").read_text().splitlines()[-1] for folder in folders]
    return [json.loads(log) for log in logs]


if __name__ == "__main__":
    main(tyro.cli(Config))
