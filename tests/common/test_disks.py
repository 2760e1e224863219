"""Disks that are full or read-only: one sentence, and the same bytes when the command runs again."""

import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from training import config, store_config

from asr_kd.check.experiment import Check
from asr_kd.common.checksums import checksum
from asr_kd.common.cli import run
from asr_kd.common.errors import UserError, system_fault
from asr_kd.common.storage import read_json, save_array
from asr_kd.features.__main__ import main as features_stage
from asr_kd.features.config import Config as FeaturesConfig
from asr_kd.lang.fst import write_fst
from asr_kd.soft_targets import __main__ as soft_targets
from asr_kd.train import __main__ as train

#: Files with times or paths in them.
VARYING = {"log.jsonl", "last.safetensors", "store.json"}


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Writing beyond that fails in this process, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def sentence_of(work) -> str:
    """What a command that does ``work`` prints when it fails."""
    with pytest.raises(SystemExit) as end:
        run(FeaturesConfig, lambda _: work(), ["--data", "any", "--out", "any"])
    return str(end.value)


def files_of(folder: Path) -> dict[str, int]:
    paths = (path for path in folder.rglob("*") if path.is_file() and "tensorboard" not in path.parts)
    return {path.name: checksum(path) for path in paths if path.name not in {*VARYING, "stage.json", ".lock"}}


def test_a_stage_that_runs_out_of_space_says_so_and_ends_the_same_when_it_has_some(
    prepared, teachers, store, tmp_path, inline
):
    again = "raise the limit (ulimit -f) and run the same command again"
    networks = config(prepared, tmp_path / "teachers", seeds=(0, 1))
    for size in (100, 2500):  # JSON does not fit; JSON does, and weights and arrays do not
        with no_file_larger_than(size):
            assert again in sentence_of(lambda: train.main(networks))
            assert again in sentence_of(lambda: soft_targets.main(store_config(prepared, teachers, tmp_path / "store")))
            end = sentence_of(lambda: features_stage(FeaturesConfig(prepared.data, tmp_path / "features")))
            assert again in end or "the disk is full" in end  # NumPy does not tell the two apart
    train.main(networks)
    soft_targets.main(store_config(prepared, teachers, tmp_path / "store"))
    features_stage(FeaturesConfig(prepared.data, tmp_path / "features"))
    for made, expected in (("teachers", teachers), ("store", store)):
        assert files_of(tmp_path / made) == files_of(expected)
    for name in ("cmvn_speakers.npy", "cmvn.json"):
        assert checksum(tmp_path / "features" / name) == checksum(prepared.features / name)
    check = Check(tmp_path)
    check.run()
    assert not check.faults, check.report()


def test_transducers_and_arrays_are_whole_or_not_there(tmp_path):
    import kaldifst

    fst = kaldifst.StdVectorFst()
    for state in range(2000):
        fst.add_state()
        fst.add_arc(state, kaldifst.StdArc(1, 1, 0.5, max(0, state - 1)))
    fst.start = 0
    with no_file_larger_than(10_000):
        with pytest.raises(UserError, match=r"G.fst cannot be written: free some space"):
            write_fst(tmp_path / "G.fst", fst)
        with pytest.raises(OSError) as error:
            save_array(tmp_path / "a.npy", np.zeros(5000))
    assert "a file is larger than the system allows" in system_fault(error.value)
    assert not list(tmp_path.iterdir())


def test_errors_of_the_system_are_one_sentence(tmp_path):
    with pytest.raises(OSError) as error, open("/dev/full", "wb") as file:
        np.save(file, np.zeros(100_000))
    assert "the disk is full" in system_fault(error.value)
    (tmp_path / "file").touch()
    taken = sentence_of(lambda: save_array(tmp_path / "file" / "a.npy", np.zeros(1)))
    assert f"{tmp_path / 'file'}: a file is in the place of a folder: choose another folder" in taken
    assert not system_fault(OSError("anything else"))


def features_command(prepared, out: Path) -> list[str]:
    command = [sys.executable, "-m", "asr_kd.features", "--data", prepared.data, "--out", out, "--jobs", "1"]
    return [str(part) for part in command]


def ended_with(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return done.returncode, done.stderr


def test_a_folder_that_cannot_be_written_is_one_sentence(prepared):
    code, log = ended_with(features_command(prepared, Path("/sys/asr_kd")))  # where root may not write either
    assert code == 1 and "Traceback" not in log
    assert "/sys/asr_kd: " in log and "choose another folder" in log.splitlines()[-1]


def test_a_worker_on_a_full_disk_ends_its_stage_with_a_sentence(prepared, tmp_path):
    """A real small disk, where this machine lets a process mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no permission to mount a disk")
    try:
        code, log = ended_with(features_command(prepared, disk / "features"))
        assert code == 1 and "Traceback" not in log
        assert "the disk is full (or has no inodes left): free some space and run the same" in log.splitlines()[-1]
        subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
        assert ended_with(features_command(prepared, disk / "features"))[0] == 0
        mark, expected = (read_json(f / "stage.json")["files"] for f in (disk / "features", prepared.features))
        assert mark["cmvn_speakers.npy"] == expected["cmvn_speakers.npy"]
        check = Check(disk)
        check.run()
        assert not check.faults, check.report()
    finally:
        subprocess.run(["umount", str(disk)], check=True)
