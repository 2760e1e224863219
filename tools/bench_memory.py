"""Peak memory of training against the size of the corpus, with cuts listed in a manifest and with shards.

    python tools/bench_memory.py --features EXP/features --cuts EXP/gmm --hours 1 10 100 --out memory.json

The training cuts of the experiment are repeated under new ids until they have the given number of hours, and one small
network is trained on them for one epoch.
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

FRAMES_PER_HOUR = 360_000


@dataclasses.dataclass
class Config:
    """Measure the memory that training needs."""

    features: Path
    """Features folder."""
    cuts: Path
    """Folder of cuts with senones."""
    hours: tuple[float, ...] = (1, 10, 100)
    """Sizes of the corpus in hours of speech."""
    pool_frames: int = 500_000
    """Number of frames that are held in memory for shuffling."""
    out: Path | None = None
    """JSON file for the results."""


def main(config: Config) -> None:
    rows = []
    for hours in config.hours:
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            count = repeat_cuts(config.cuts, root / "cuts", hours)
            write_shards(SharConfig(cuts=root / "cuts", out=root / "shards"))
            row: dict[str, Any] = {"hours": hours, "cuts": count}
            for title, cuts in (("manifest", root / "cuts"), ("shards", root / "shards")):
                row[f"{title}, MB"] = round(peak_memory(config, cuts, root / f"trained-{title}") / 1e6)
            rows.append(row)
    bench.report(config, rows, f"pool of {config.pool_frames:,} frames")


def repeat_cuts(cuts: Path, out: Path, hours: float) -> int:
    """Copy the folder ``cuts`` with ``hours`` of training speech; return the number of training utterances."""
    stage = Stage("repeat", out, {"hours": hours}, [cuts])
    stage.begin()
    for path in cuts.iterdir():
        if path.is_file() and path.name not in (MARK, "cuts_train.jsonl.gz"):
            copy_file(path, out / path.name)
    frames = count = 0
    with jsonl_writer(out / "cuts_train.jsonl.gz") as add:
        for cut in _repeat(cuts / "cuts_train.jsonl.gz"):
            add(cut)
            count, frames = count + 1, frames + cut["features"]["num_frames"]
            if frames >= hours * FRAMES_PER_HOUR:
                break
    description = read_json(cuts / "hmm.json")
    description["splits"]["train"]["frames"] = frames  # determines the size of the shards
    write_json(out / "hmm.json", description)
    stage.finish()
    return count


def _repeat(manifest: Path) -> Iterator[dict[str, Any]]:
    for turn in itertools.count():
        for cut in read_jsonl(manifest):
            yield {**cut, "id": f"{cut['id']}-{turn}"}


def peak_memory(config: Config, cuts: Path, out: Path) -> int:
    """Peak memory in bytes of a process that trains on ``cuts``."""
    flags = bench.flags(
        features=config.features, cuts=cuts, out=out, preset="tiny", epochs=1, batch_size=4096,
        pool_frames=config.pool_frames, jobs=1,
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", TRAIN, *flags], check=True, stdout=subprocess.PIPE, text=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


#: Trains in the process whose memory is measured.
TRAIN = """
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
