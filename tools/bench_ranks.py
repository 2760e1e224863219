"""Speed of one network trained by several processes, of one thread each, against one process of one thread.

    python tools/bench_ranks.py --features EXP/features --cuts EXP/gmm --out ranks.json

Each trains the same batches of the same streams for an epoch; the first updates count like all others.
"""

from __future__ import annotations

import dataclasses
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
    processes: tuple[int, ...] = (1, 2)
    """How many together; more than one share the frames, then the weights (--split)."""
    presets: tuple[str, ...] = ("medium", "large", "paper")
    """Networks."""
    batch: int = 1024
    """Frames a batch, of all processes."""
    out: Path | None = None
    """Also write the figures as JSON."""


def main(config: Config) -> None:
    rows = []
    for preset in config.presets:
        single: float | None = None
        for processes in config.processes:
            for shared in ("frames", "weights") if processes > 1 else ("",):
                figures = measure(config, preset, processes, shared == "weights")
                single = single or figures["frames_per_second"]
                rows.append(
                    {
                        "network": preset,
                        "processes": processes,
                        "share": shared or "–",
                        "frames/s": figures["frames_per_second"],
                        "times one": figures["frames_per_second"] / single,
                        "dev frames right, %": figures["dev_accuracy"],
                    }
                )
    print(f"{bench.machine('cpu')}\n")
    print(bench.table(rows))
    bench.write(config.out, {"machine": bench.machine("cpu"), "rows": rows})


def measure(config: Config, preset: str, processes: int, split: bool) -> dict[str, Any]:
    """The log of one epoch."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        flags = {
            "features": config.features, "cuts": config.cuts, "out": folder, "preset": preset, "epochs": 1,
            "batch-size": config.batch, "streams": max(config.processes), "device": "cpu",
        }  # fmt: skip
        command = [sys.executable, *(launcher if processes > 1 else []), "-m", "asr_kd.train"]
        command += [text for name, value in flags.items() for text in (f"--{name}", str(value))]
        command += ["--split"] * split
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        cores = sorted(os.sched_getaffinity(0))[:processes]  # a network alone would take all of them as threads
        subprocess.run(
            command, env=environment, check=True, stdout=subprocess.DEVNULL,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )  # fmt: skip
        lines = (Path(folder) / "seed-0" / "log.jsonl").read_text().splitlines()
    return json.loads(lines[-1])


if __name__ == "__main__":
    main(tyro.cli(Config))
