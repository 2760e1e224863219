"""Completion marks, atomic writes and command lines."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from asr_kd.common import cli
from asr_kd.common.errors import UserError
from asr_kd.common.storage import RUN_ONLY, Stage, atomic_open, path_fingerprint, read_json, stage_figures, write_json


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
    assert stage(tmp_path, batch=9).begin(), "a field counts by what it says of itself, not by its name"
    assert not (first.out / "result").exists(), "what other settings made is gone"


def test_changed_input_redoes_and_interrupted_stage_resumes(tmp_path):
    (tmp_path / "source.txt").write_text("one")
    first = stage(tmp_path)
    assert first.begin()
    (first.out / "part").write_text("half")
    assert stage(tmp_path).begin()
    assert (first.out / "part").exists(), "an interrupted stage keeps its parts"
    with pytest.raises(UserError, match="unfinished"):
        path_fingerprint(first.out)
    (tmp_path / "source.txt").write_text("two")
    assert stage(tmp_path).begin()
    assert not (first.out / "part").exists()


def test_settings_that_are_new_have_had_their_defaults(tmp_path):
    """A newer asr_kd, with more flags, does not make everything anew."""
    (tmp_path / "source.txt").write_text("one")
    before = Stage("test", tmp_path / "out", {"size": 3}, [tmp_path / "source.txt"])
    assert before.begin()
    before.finish()
    assert stage(tmp_path, rate=2.0).begin(), "the flag is new, its value is not the default"
    assert stage(tmp_path).begin()

    assert before.begin()
    now = stage(tmp_path)
    assert now.begin(), "it was interrupted"
    now.finish()
    assert not stage(tmp_path).begin()
    assert not before.begin()
    assert now.fingerprint == before.fingerprint, "what was made from it stays valid"


def test_what_is_removed_is_told(tmp_path, capsys):
    (tmp_path / "source.txt").write_text("one")
    stage(tmp_path).begin()
    assert capsys.readouterr().out == ""
    stage(tmp_path, size=4, rate=2.0).begin()
    said = f"test: {tmp_path / 'out'} is outdated (rate was 1.0, is 2.0; size was 3, is 4): rebuilding\n"
    assert capsys.readouterr().out == said
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


def test_damaged_json_says_what_to_do(tmp_path):
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_json(tmp_path / "a.json")


def test_yaml_sections_and_flags(tmp_path):
    (tmp_path / "conf.yaml").write_text("part:\n  size: 9\n  source: a.txt\n")
    section = f"{tmp_path / 'conf.yaml'}:part"
    config = cli.parse(Config, ["--config", section, "--out", "x"])
    assert config == Config(Path("x"), Path("a.txt"), 9)
    assert cli.parse(Config, ["--config", section, "--out", "x", "--size", "2"]).size == 2
    (tmp_path / "rate.yaml").write_text("rate: 1e-7\n")
    assert cli.parse(Config, ["--config", str(tmp_path / "rate.yaml"), "--out", "x"]).rate == 1e-7
    (tmp_path / "rate.yaml").write_text("rate: fast\n")
    with pytest.raises(UserError, match="rate must be a number"):
        cli.parse(Config, ["--config", str(tmp_path / "rate.yaml"), "--out", "x"])
    (tmp_path / "bad.yaml").write_text("sise: 9\n")
    with pytest.raises(UserError, match="sise"):
        cli.parse(Config, ["--config", str(tmp_path / "bad.yaml"), "--out", "x"])


def test_separator_begins_another_configuration():
    found = []
    cli.run(Config, lambda *all_of_them: found.extend(all_of_them), ["--out", "x", "--and", "--out", "y"], "--and")
    assert [config.out for config in found] == [Path("x"), Path("y")]


def test_user_errors_are_one_line_and_exit_1():
    done = subprocess.run(
        [sys.executable, "-m", "asr_kd.train", "--features", "a", "--cuts", "b", "--out", "c", "--epochs", "0"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip().startswith("python -m asr_kd.train: error: --epochs")
    assert "Traceback" not in done.stderr
