"""Memory of training against the size of the corpus: cuts listed by a manifest, and in shards.

    python tools/bench_memory.py --features EXP/features --cuts EXP/gmm --hours 1 10 100 --out memory.json

The experiment's training cuts are repeated under new ids until there is as much speech as asked for, and one small
network is trained on them for an epoch.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import tyro

from asr_kd.common.storage import MARK, Stage, copy_file, read_json, write_json
from asr_kd.corpora.manifests import jsonl_writer, read_jsonl
from asr_kd.corpora.shar.__main__ import main as write_shards
from asr_kd.corpora.shar.config import Config as SharConfig

FRAMES_AN_HOUR = 360_000


@dataclasses.dataclass
class Config:
    """Benchmark memory."""

    features: Path
    """Features folder."""
    cuts: Path
    """Folder with cuts that carry senones."""
    hours: tuple[float, ...] = (1, 10, 100)
    """Sizes of the corpus."""
    pool_frames: int = 500_000
    """Frames held in memory for shuffling."""
    out: Path | None = None
    """Also write the figures as JSON."""


def main(config: Config) -> None:
    rows = []
    for hours in config.hours:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            count = repeat(config.cuts, root / "cuts", hours)
            write_shards(SharConfig(cuts=root / "cuts", out=root / "shar"))
            row: dict[str, Any] = {"hours": hours, "cuts": count}
            for title, cuts in (("listed in a manifest, MB", root / "cuts"), ("in shards, MB", root / "shar")):
                row[title] = round(peak(config, cuts, root / title[:2]) / 1e6)
            rows.append(row)
    print(f"{bench.machine('cpu')}; pool of {config.pool_frames:,} frames\n")
    print(bench.table(rows))
    bench.write(config.out, {"machine": bench.machine("cpu"), "rows": rows})


def repeat(cuts: Path, out: Path, hours: float) -> int:
    """A folder as ``cuts`` with so much training speech; returns its utterances."""
    stage = Stage("repeat", out, {"hours": hours}, [cuts])
    stage.begin()
    for path in cuts.iterdir():
        if path.is_file() and path.name not in (MARK, "cuts_train.jsonl.gz"):
            copy_file(path, out / path.name)
    frames = count = 0
    with jsonl_writer(out / "cuts_train.jsonl.gz") as add:
        for cut in _again(cuts / "cuts_train.jsonl.gz"):
            add(cut)
            count, frames = count + 1, frames + cut["features"]["num_frames"]
            if frames >= hours * FRAMES_AN_HOUR:
                break
    about = read_json(cuts / "hmm.json")
    about["splits"]["train"]["frames"] = frames  # decides how large shards are
    write_json(out / "hmm.json", about)
    stage.finish()
    return count


def _again(manifest: Path) -> Iterator[dict[str, Any]]:
    for turn in itertools.count():
        for cut in read_jsonl(manifest):
            yield {**cut, "id": f"{cut['id']}-{turn}"}


def peak(config: Config, cuts: Path, out: Path) -> int:
    """Bytes that a process needed at most to train on ``cuts``."""
    flags = {"features": config.features, "cuts": cuts, "out": out, "preset": "tiny", "epochs": 1, "batch-size": 4096}
    flags |= {"pool-frames": config.pool_frames, "jobs": 1}
    command = [sys.executable, "-c", MEASURE, *(text for n, v in flags.items() for text in (f"--{n}", str(v)))]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


#: Trains in the process that is measured.
MEASURE = """
import resource, sys
from asr_kd.common.cli import parse
from asr_kd.train.config import Config; from asr_kd.train.__main__ import main
if __name__ == "__main__":
    from concurrent.futures import ThreadPoolExecutor
    from asr_kd.common.parallel import Workers
    Workers.executor = lambda *_: ThreadPoolExecutor(1)
    main(parse(Config, sys.argv[1:]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


if __name__ == "__main__":
    main(tyro.cli(Config))
