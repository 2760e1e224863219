"""Stages write the same bytes with the workers of a real Dask cluster as with local processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from distributed import Client
from training import config, store_config

from asr_kd.common.cluster import connect
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_all
from asr_kd.features import __main__ as features
from asr_kd.score.accuracy import __main__ as accuracy
from asr_kd.soft_targets import __main__ as soft_targets_stage
from asr_kd.train import __main__ as train


def content(folder: Path) -> dict[str, bytes]:
    """The files, except completion marks, which contain times, and manifests, which contain absolute paths."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "stage.json" and not path.name.startswith("cuts_")
    }


def test_features(prepared, tmp_path, scheduler):
    features.main(features.Config(prepared.data, tmp_path / "features", scheduler=scheduler))
    assert content(tmp_path / "features") == content(prepared.features)


def test_networks_and_their_soft_targets(prepared, teachers, store, tmp_path, scheduler):
    """Two networks at once, on workers that each claim to have a GPU."""
    seeds = (0, 1)
    train.main(config(prepared, tmp_path / "near", seeds=seeds, epochs=1, jobs=2))
    train.main(config(prepared, tmp_path / "far", seeds=seeds, epochs=1, scheduler=scheduler, resources="gpu=1"))
    for seed in seeds:
        near, far = (tmp_path / name / f"seed-{seed}" / "model.safetensors" for name in ("near", "far"))
        assert near.read_bytes() == far.read_bytes()
    soft_targets_stage.main(store_config(prepared, teachers, tmp_path / "store", scheduler=scheduler))
    found, expected = content(tmp_path / "store"), content(store)
    found.pop("store.json"), expected.pop("store.json")  # they contain the paths of the teachers
    assert found == expected


def test_frame_accuracy(prepared, teachers, tmp_path, scheduler):
    for name, address in (("near", ""), ("far", scheduler)):
        systems = (f"one={teachers / 'seed-0'}", f"two={teachers / 'seed-0'},{teachers / 'seed-1'}")
        accuracy.main(accuracy.Config(systems, prepared.features, prepared.senones, tmp_path / name, scheduler=address))
    assert content(tmp_path / "far") == content(tmp_path / "near")


def slow(path: Path) -> int:
    """Note the start of a job, and take some time."""
    path.with_suffix(f".{os.getpid()}").touch()
    time.sleep(0.3)
    return os.getpid()


def test_a_killed_worker_is_replaced(tmp_path, scheduler):
    with Client(scheduler, set_as_default=False) as client:
        victim = next(iter(client.run(os.getpid).values()))

    def kill() -> None:
        while not list(tmp_path.glob(f"*.{victim}")):
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with connect(scheduler) as executor:
        done = dict(run_all(executor, slow, [tmp_path / f"job-{n}" for n in range(12)], "jobs"))
    killer.join()
    assert sorted(done) == list(range(12)), "every job has a result, including those of the killed worker"
    begun = list(tmp_path.iterdir())
    assert len(begun) > 12 or victim not in done.values()


def test_impossible_clusters_are_explained(prepared, tmp_path, scheduler):
    for flags, message in (
        ({"scheduler": "tcp://127.0.0.1:1"}, "no Dask scheduler answers"),
        ({"scheduler": scheduler, "resources": "tpu=1"}, "no worker of .* has tpu=1"),
        ({"scheduler": scheduler, "resources": "gpu"}, "NAME=NUMBER"),
    ):
        with pytest.raises(UserError, match=message):
            train.main(config(prepared, tmp_path / "networks", **flags))


def test_one_machine_needs_no_dask(prepared, tmp_path, monkeypatch):
    """Local runs do not import Dask, and --scheduler without it says what to install."""
    (tmp_path / "hidden").mkdir()
    for name in ("dask", "distributed"):
        (tmp_path / "hidden" / f"{name}.py").write_text("raise ModuleNotFoundError(__name__)")
        monkeypatch.setitem(sys.modules, name, None)
    flags = (
        f"--features {prepared.features} --cuts {prepared.senones} --out {tmp_path / 'networks'} --seeds 0 1 --jobs 2"
    )
    command = [sys.executable, "-m", "asr_kd.train", *flags.split(), "--preset", "tiny", "--epochs", "1"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path / 'hidden'}:{Path(train.__file__).parents[2]}"}
    subprocess.run(command, env=environment, check=True)
    assert len(list(tmp_path.glob("networks/seed-*/model.safetensors"))) == 2
    with pytest.raises(UserError, match="needs Dask: pip install"):
        connect("tcp://127.0.0.1:1")
