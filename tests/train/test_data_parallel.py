"""A network trained by several processes is the same as one trained by a single process."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from training import config, inline_jobs

from asr_kd.common.storage import read_json
from asr_kd.models.checkpoints import load_model
from asr_kd.train import __main__ as train

#: Few updates: differences by rounding grow with them, and must stay smaller than those by a mistake.
EPOCHS = 8


@pytest.fixture(scope="module")
def soft(store) -> dict[str, Any]:
    """Settings that make a network a student."""
    return {"soft_targets": store, "temperature": 2.0, "hard_weight": 0.3}


@pytest.fixture(scope="module")
def student(soft) -> dict[str, Any]:
    """Settings of a student; dropout and batch norm would both show that processes disagree."""
    return soft | {"epochs": EPOCHS, "streams": 2, "batch_norm": True, "dropout": 0.2, "batch_size": 1000}


def flags(settings: train.Config) -> list[str]:
    values = {**vars(settings), "seeds": 0, "device": "cpu"}
    given = []
    for name, value in values.items():
        if value is True:
            given.append(f"--{name.replace('_', '-')}")
        elif isinstance(value, tuple):
            given += [f"--{name.replace('_', '-')}", *map(str, value)] if value else []
        elif value not in (None, False):
            given += [f"--{name.replace('_', '-')}", str(value)]
    return given


def torchrun(settings: train.Config, *more: str, **options: Any) -> subprocess.Popen[bytes]:
    return launch(*more, "-m", "asr_kd.train", *flags(settings), **options)


def launch(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Start two processes with torchrun; ``options`` are those of Popen."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments]
    return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True, **options)


def log_of(folder: Path) -> list[dict[str, float]]:
    entries = [json.loads(line) for line in (folder / "seed-0" / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in entry.items() if k not in ("seconds", "frames_per_second")} for entry in entries]


@pytest.fixture(scope="module")
def alone(prepared, student, tmp_path_factory) -> Path:
    """A network trained by one process."""
    out = tmp_path_factory.mktemp("alone") / "network"
    with inline_jobs():
        train.main(config(prepared, out, **student))
    return out


def assert_same(found: Path, expected: Path) -> None:
    assert read_json(found / "seed-0" / "stage.json")["status"] == "done"
    for entry, expected_entry in zip(log_of(found), log_of(expected), strict=True):
        assert entry == pytest.approx(expected_entry, rel=1e-3, abs=1e-4)


def workers(agent: int) -> list[int]:
    """Return the processes that torchrun has started."""
    return [int(pid) for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while not path.is_file():
        assert process.poll() is None
        time.sleep(0.01)


def test_two_processes_are_one_even_if_one_is_killed(prepared, student, alone, tmp_path):
    """torchrun restarts them, and they resume after the last epoch."""
    settings = config(prepared, tmp_path / "network", **student)
    run = torchrun(settings, "--max-restarts", "1")
    last = settings.out / "seed-0" / "last.safetensors"
    wait_for(last, run)
    os.kill(workers(run.pid)[1], signal.SIGKILL)
    assert run.wait() == 0
    assert_same(settings.out, alone)


def test_two_processes_train_on_chunks_and_resume(prepared, soft, tmp_path, inline):
    """Each has chunks of its own, so that the network is another one than with a single process, but as good."""
    chunks = {"network": "tdnnf", "network_args": ("width=48", "bottleneck=16"), "preset": "medium", "batch_size": 512,
              "streams": 2, "epochs": 6, "chunk": 60, "batch_chunks": 6, "learning_rate": 1e-2}  # fmt: skip
    settings = config(prepared, tmp_path / "network", **soft, **chunks)
    run = torchrun(settings)
    wait_for(settings.out / "seed-0" / "last.safetensors", run)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert torchrun(settings).wait() == 0
    train.main(alone := dataclasses.replace(settings, out=tmp_path / "alone"))
    together, single = (log_of(folder)[-1] for folder in (settings.out, alone.out))
    assert together["updates"] == single["updates"]
    assert together["dev_accuracy"] > single["dev_accuracy"] - 8 > 60


def test_sequence_training_by_several_processes_is_refused(prepared, alone, tmp_path):
    (tmp_path / "lattices").mkdir()
    settings = config(prepared, tmp_path / "network", start_from=alone / "seed-0", lattices=tmp_path / "lattices")
    run = torchrun(settings, stderr=subprocess.PIPE)
    complaints = run.communicate()[1].decode()
    sentence = "asr_kd.train: error: --lattices trains a network in one process: start it without torchrun"
    assert run.returncode and sentence in complaints
    assert not (tmp_path / "network/seed-0/stage.json").exists()


def test_another_number_of_processes_resumes(prepared, student, alone, tmp_path, inline):
    settings = config(prepared, tmp_path / "network", **student)
    run = torchrun(settings)
    wait_for(settings.out / "seed-0" / "last.safetensors", run)
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert len(log_of(settings.out)) < EPOCHS
    train.main(settings)
    assert_same(settings.out, alone)


def test_a_split_network_is_the_whole_one(prepared, soft, tmp_path, inline):
    """Its checkpoints are those of the whole network, too: a killed run resumes."""
    settings = config(prepared, tmp_path / "whole", epochs=2, dropout=0.2)
    train.main(settings)
    train.main(dataclasses.replace(settings, out=tmp_path / "student", **soft))
    for name, more in (("whole", {}), ("student", soft)):
        split = dataclasses.replace(settings, out=tmp_path / f"split {name}", tensor_parallel=True, **more)
        run = torchrun(split)
        if more:
            wait_for(split.out / "seed-0" / "last.safetensors", run)
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            assert len(log_of(split.out)) == 1
            run = torchrun(split)
        assert run.wait() == 0
        assert_same(split.out, tmp_path / name)
        weights, expected = (load_model(tmp_path / n / "seed-0").state_dict() for n in (f"split {name}", name))
        for key, value in expected.items():
            torch.testing.assert_close(weights[key], value, rtol=1e-2, atol=3e-3)


def test_more_processes_than_streams_are_refused(prepared, tmp_path):
    settings = config(prepared, tmp_path / "network", epochs=1)
    assert torchrun(settings).wait() != 0
    assert not (settings.out / "seed-0" / "model.safetensors").exists()


#: Uses a process group, and fails if any of its threads is left.
LEAVE = """
import pathlib, torch
from asr_kd.common import distributed
with distributed.process_group("cpu"):
    network = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(3, 3))
    distributed.all_reduce_sum(network(torch.ones(1, 3)).sum()).backward()
    distributed.broadcast_from_first(dict)
    del network
left = [path.read_text() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
assert not any("gloo" in name for name in left), left
"""


def test_no_thread_outlives_the_group():
    """Python sometimes aborts the process if a thread is alive at its end."""
    assert launch("--no-python", sys.executable, "-c", LEAVE).wait() == 0
