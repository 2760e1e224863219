"""Completion marks and atomic writes."""

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from asr_kd.common import locks
from asr_kd.common.errors import UserError
from asr_kd.common.storage import (
    RUN_ONLY,
    Stage,
    atomic_open,
    atomic_path,
    load_array,
    path_fingerprint,
    read_json,
    save_array,
    stage_figures,
    verify,
    write_json,
)


@dataclasses.dataclass
class Config:
    """A stage for tests."""

    out: Path
    """Folder to write."""
    source: Path = Path("source.txt")
    """What to read."""
    size: int = 3
    """How many."""
    rate: float = 1.0
    """How fast."""
    batch: int = 8
    """Examples seen together."""
    jobs: int = dataclasses.field(default=0, metadata=RUN_ONLY)
    """Processes."""


def stage(tmp_path, **settings):
    config = Config(tmp_path / "out", **settings)
    return Stage("test", config.out, config, [tmp_path / "source.txt"])


def test_finished_stage_is_up_to_date_until_something_changes(tmp_path):
    (tmp_path / "source.txt").write_text("one")
    first = stage(tmp_path)
    assert first.begin()
    (first.out / "result").write_text("x")
    first.finish(cuts=7)
    assert stage_figures(first.out)["cuts"] == 7
    assert not stage(tmp_path).begin()
    assert not stage(tmp_path, jobs=5).begin(), "the number of processes does not change the result"
    assert stage(tmp_path, batch=9).begin(), "the metadata of a field decides whether it counts, not its name"
    assert not (first.out / "result").exists(), "the files of other settings are removed"


def test_a_changed_input_restarts_and_an_interrupted_stage_resumes(tmp_path):
    (tmp_path / "source.txt").write_text("one")
    first = stage(tmp_path)
    assert first.begin()
    (first.out / "part").write_text("half")
    assert stage(tmp_path).begin()
    assert (first.out / "part").exists(), "an interrupted stage keeps its files"
    with pytest.raises(UserError, match="unfinished"):
        path_fingerprint(first.out)
    (tmp_path / "source.txt").write_text("two")
    assert stage(tmp_path).begin()
    assert not (first.out / "part").exists()


def test_new_settings_count_as_defaults(tmp_path):
    """A newer asr_kd with more flags does not make old folders outdated."""
    (tmp_path / "source.txt").write_text("one")
    before = Stage("test", tmp_path / "out", {"size": 3}, [tmp_path / "source.txt"])
    assert before.begin()
    before.finish()
    assert stage(tmp_path, rate=2.0).begin(), "the value of the new flag is not the default"
    assert stage(tmp_path).begin()

    assert before.begin()
    now = stage(tmp_path)
    assert now.begin(), "the earlier run was interrupted"
    now.finish()
    assert not stage(tmp_path).begin()
    assert not before.begin()
    assert now.fingerprint == before.fingerprint, "folders that depend on it are still valid"


def test_a_line_says_why_files_are_removed(tmp_path, capsys):
    (tmp_path / "source.txt").write_text("one")
    stage(tmp_path).begin()
    assert capsys.readouterr().out == ""
    stage(tmp_path, size=4, rate=2.0).begin()
    line = f"test: {tmp_path / 'out'} is outdated (rate was 1.0, is 2.0; size was 3, is 4): rebuilding\n"
    assert capsys.readouterr().out == line
    (tmp_path / "source.txt").write_text("two")
    stage(tmp_path, size=4, rate=2.0).begin()
    assert "is outdated (its inputs or the version of asr_kd changed): rebuilding" in capsys.readouterr().out


@pytest.mark.parametrize("status", ["done", "running"])
def test_an_older_layout_is_refused_and_kept(tmp_path, status):
    (tmp_path / "source.txt").write_text("one")
    out = tmp_path / "out"
    write_json(
        out / "stage.json", {"stage": "test", "status": status, "fingerprint": "0", "settings": {}, "figures": {}}
    )
    (out / "result").write_text("x")
    for read in (stage(tmp_path).begin, lambda: path_fingerprint(out), lambda: stage_figures(out)):
        with pytest.raises(UserError, match="another version of asr_kd"):
            read()
    assert (out / "result").exists()


OWNER = """
import sys, time
from pathlib import Path
from asr_kd.common.storage import Stage
stage = Stage("test", Path(sys.argv[1]), {"size": 3})
assert stage.begin()
(stage.out / "part").write_text("half")
print("begun", flush=True)
if sys.stdin.readline() == "finish\\n":
    stage.finish()
"""


def test_a_folder_has_one_owner_at_a_time(tmp_path, monkeypatch, caplog):
    """Other settings are refused, the same wait until the owner ends; a dead owner leaves no lock."""
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.2)
    monkeypatch.setattr(locks, "_held", {})  # other tests leave folders unfinished
    caplog.set_level("INFO")
    for end, done in (("finish\n", True), ("", False)):
        out = tmp_path / ("finished" if done else "killed")
        command = [sys.executable, "-c", OWNER, str(out)]
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner,
            ThreadPoolExecutor() as threads,
        ):
            assert owner.stdout.readline() == "begun\n"
            with pytest.raises(UserError, match=f"is in use by process {owner.pid} on .*: wait until it ends"):
                Stage("test", out, {"size": 4}).begin()
            begun = threads.submit(Stage("test", out, {"size": 3}).begin)
            with pytest.raises(TimeoutError):
                begun.result(timeout=0.5)
            assert f"{out} is being made by process {owner.pid} on" in caplog.text
            assert (out / "part").read_text() == "half"
            if end:
                owner.communicate(end)
            else:
                owner.kill()
            assert begun.result(timeout=20) is not done
        assert (out / "part").exists() and (out / ".lock").exists() is not done
        other = Stage("test", out, {"size": 4})
        assert other.begin() and not (out / "part").exists()
        other.finish()
        assert [path.name for path in out.iterdir()] == ["stage.json"]


def test_who_owns_a_folder_waits_for_nobody_so_that_two_cannot_wait_for_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.2)
    command = [sys.executable, "-c", OWNER, str(tmp_path / "theirs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "begun\n"
        mine = Stage("test", tmp_path / "mine", {})
        assert mine.begin()
        with pytest.raises(UserError, match=f"is in use by process {owner.pid}"):
            Stage("test", tmp_path / "theirs", {"size": 3}).begin()
        mine.finish()
        owner.communicate("finish\n")


def test_foreign_folder_is_refused(tmp_path):
    (tmp_path / "source.txt").write_text("one")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="asr_kd did not write"):
        stage(tmp_path).begin()
    assert (tmp_path / "out" / "thesis.tex").exists()


def test_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(RuntimeError), atomic_open(path) as file:
        file.write("{")
        raise RuntimeError
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_files_get_the_mode_of_the_umask_whoever_writes_them(tmp_path):
    with atomic_path(tmp_path / "private") as path:
        path.touch(mode=0o600)
    write_json(tmp_path / "a.json", {})
    umask = os.umask(0)
    os.umask(umask)
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o666 & ~umask}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_arrays_that_are_not_finite_are_neither_written_nor_read(tmp_path, value):
    array = np.array([[1.0, 2.0], [3.0, value]], np.float32)
    with pytest.raises(UserError, match="NaN or infinite"):
        save_array(tmp_path / "a.npy", array)
    assert not list(tmp_path.iterdir())
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=r"damaged.*NaN or infinite"):
        load_array(tmp_path / "a.npy")
    save_array(tmp_path / "b.npy", array[:1])
    assert load_array(tmp_path / "b.npy").tolist() == [[1.0, 2.0]]


def test_damaged_json_says_what_to_do(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_json(tmp_path / "a.json")


def test_what_a_killed_run_was_writing_is_removed_by_the_next(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.stage.json.12345678").touch()  # of a run that was killed before its mark was written
    assert Stage("s", tmp_path / "out", {}).begin()
    (tmp_path / "out/part").mkdir()
    for name in (".a.json.x1y2z3w_", "part/.b.npy.abcdefgh", ".keep", "part/c.npy"):
        (tmp_path / "out" / name).write_text("x")
    (tmp_path / "out/.tmp-12345678").mkdir()
    (tmp_path / "out/.tmp-12345678/d").write_text("x")
    assert Stage("s", tmp_path / "out", {}).begin()
    kept = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert kept - {".lock"} == {".keep", "part/c.npy", "stage.json"}


def test_a_file_that_its_stage_wrote_and_that_is_missing_is_named(tmp_path):
    stage = Stage("decode", tmp_path / "out", {})
    assert stage.begin()
    write_json(tmp_path / "out" / "words.json", {})
    stage.finish()
    assert verify(tmp_path / "out" / "other.json") == tmp_path / "out" / "other.json"
    (tmp_path / "out" / "words.json").unlink()
    with pytest.raises(UserError, match=r"words.json is missing, which its stage wrote: delete the folder .*decode"):
        verify(tmp_path / "out" / "words.json")


def test_a_run_killed_while_it_wrote_its_first_mark(tmp_path):
    (tmp_path / ".stage.json.ab_12cd3").write_text('{"stage": "te')
    stage = Stage("test", tmp_path, {})
    assert stage.begin()
    stage.finish()
    assert [path.name for path in tmp_path.iterdir()] == ["stage.json"]
