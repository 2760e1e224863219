"""Settings of small networks and soft-target stores on the ``prepared`` corpus."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from asr_kd.common.checksums import MARK, list_files
from asr_kd.common.parallel import Workers
from asr_kd.common.storage import read_json, write_json
from asr_kd.soft_targets.config import Config as StoreConfig
from asr_kd.train.config import Config


def config(prepared, out: Path, **changes) -> Config:
    settings = {"preset": "tiny", "epochs": 3, "batch_size": 64, "precision": "float32", "jobs": 1} | changes
    return Config(prepared.features, prepared.senones, out, **settings)


def store_config(prepared, teachers: Path | None, out: Path, **changes) -> StoreConfig:
    settings = {"temperatures": (1.0, 2.0), "tail": "bucket", "floor": 0.004, "top": 4, "jobs": 1} | changes
    models = () if teachers is None else (teachers / "seed-0", teachers / "seed-1")
    return StoreConfig(
        prepared.features, prepared.senones / "cuts_train.jsonl.gz", out, **{"models": models, **settings}
    )


def remark(folder: Path, status: str = "done") -> None:
    """Give a stage's folder whose files a test has changed a mark that fits them."""
    mark = read_json(folder / MARK)
    files = list_files(folder, mark["elsewhere"]) if status == "done" else {}
    write_json(folder / MARK, mark | {"status": status, "files": files}, sealed=True)


@contextmanager
def inline_jobs() -> Iterator[None]:
    """Run jobs in this process: for a small corpus, starting processes takes longer than their work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Workers, "executor", lambda *_: ThreadPoolExecutor(1))
        yield
