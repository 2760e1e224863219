"""Speed of training one network with several processes of one thread each, compared with one such process.

    python tools/bench_parallel_training.py --features EXP/features --cuts EXP/gmm --out parallel_training.json

All runs train on the same batches for one epoch.  Data parallelism divides each batch among the processes, tensor
parallelism the weights.  Independent networks, one per process, trained at the same time show the most that the cores
can give.
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
PARALLELISM = ("independent networks", "data", "tensor")


@dataclasses.dataclass
class Config:
    """Measure the speed of data and tensor parallelism (torchrun)."""

    features: Path
    """Features folder."""
    cuts: Path
    """Folder of cuts with senones."""
    processes: int = 2
    """Number of processes."""
    presets: tuple[str, ...] = ("medium", "large", "paper")
    """Presets of the networks."""
    batches: tuple[int, ...] = (1024, 8192)
    """Batch sizes in frames, over all processes."""
    out: Path | None = None
    """JSON file for the results."""


def main(config: Config) -> None:
    rows = []
    for preset, batch in itertools.product(config.presets, config.batches):
        single: float | None = None
        for processes, parallelism in ((1, "none"), *((config.processes, p) for p in PARALLELISM)):
            logs = measure(config, preset, batch, processes, parallelism)
            speed = sum(log["frames_per_second"] for log in logs)
            single = single or speed
            rows.append(
                {
                    "network": preset, "batch": batch, "processes": processes, "parallelism": parallelism,
                    "frames/s": speed, "speedup": speed / single, "dev frame accuracy, %": logs[0]["dev_accuracy"],
                }
            )  # fmt: skip
    bench.report(config, rows)


def measure(config: Config, preset: str, batch: int, processes: int, parallelism: str) -> list[dict[str, Any]]:
    """The last log entry of each network."""
    cores = sorted(os.sched_getaffinity(0))[:processes]  # a single process would otherwise use a thread per core
    groups = [[core] for core in cores] if parallelism == "independent networks" else [cores]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(number) for number in range(len(groups))]
        running = []
        for folder, group in zip(folders, groups, strict=True):
            command = ["taskset", "--cpu-list", ",".join(map(str, group)), sys.executable]
            if len(group) > 1:
                command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(len(group))]
            command += ["-m", "asr_kd.train"]
            command += bench.flags(
                features=config.features, cuts=config.cuts, out=folder, preset=preset, epochs=1, batch_size=batch,
                streams=config.processes, device="cpu",
            )  # fmt: skip
            command += ["--tensor-parallel"] * (parallelism == "tensor")
            running.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        if any([process.wait() for process in running]):
            raise SystemExit("training failed: see the messages above")
        logs = [(folder / "seed-0" / "log.jsonl").read_text().splitlines()[-1] for folder in folders]
    return [json.loads(log) for log in logs]


if __name__ == "__main__":
    main(tyro.cli(Config))
