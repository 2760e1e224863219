"""Flags, YAML files and error messages of command lines."""

import contextlib
import dataclasses
import re
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from asr_kd.common import cli
from asr_kd.common.errors import UserError


@dataclasses.dataclass
class Config:
    """A stage for tests."""

    out: Path
    """Folder to write."""
    source: Path = Path("source.txt")
    """File to read."""
    size: int = 3
    """Number of items."""
    rate: float = 1.0
    """Learning rate."""


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
    configs = []
    cli.run(Config, lambda *args: configs.extend(args), ["--out", "x", "--and", "--out", "y"], "--and")
    assert [config.out for config in configs] == [Path("x"), Path("y")]


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


@pytest.mark.parametrize("module", ["features.extraction", "corpora.utterances", "train.loop", "soft_targets.compute"])
def test_training_needs_no_package_of_the_other_extras(module):
    extras = [name for extra in ("kaldi", "bundle", "specialists") for name in cli.EXTRAS[extra]]
    code = f"import sys; sys.modules.update(dict.fromkeys({extras})); import asr_kd.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", ["print('words ' * 9)", "logging.info('words')"])
def test_output_that_nobody_reads_any_more_ends_quietly(line, tmp_path):
    (tmp_path / "stage.py").write_text(
        "import dataclasses, logging, time\n"
        "from asr_kd.common.cli import run\n"
        "@dataclasses.dataclass\nclass Config:\n    'A stage.'\n    out: str = ''\n    'Folder.'\n"
        f"def main(config):\n    while True:\n        {line}\n"
        "run(Config, main)\n"
    )
    command = f"{sys.executable} {tmp_path / 'stage.py'} | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
    assert done.stdout.count("\n") == 1 and "words" in done.stdout


def test_full_folder_of_temporary_files_is_one_sentence(monkeypatch):
    monkeypatch.setenv("TMPDIR", "/small")

    def main(config: Config) -> None:
        with contextlib.closing(sqlite3.connect("")) as table:
            table.execute("pragma max_page_count = 2")
            table.execute("create table words (word text)")
            table.executemany("insert into words values (?)", [["word " * 100]] * 100)

    with pytest.raises(SystemExit) as end:
        cli.run(Config, main, ["--out", "x"])
    assert re.search(r"error: /small \(temporary files; TMPDIR .*\): the disk is full .* again$", str(end.value))


@pytest.mark.parametrize("stage", ["accuracy", "align", "shar", "subset"])
def test_usage_names_the_command_that_was_typed(stage):
    command = [sys.executable, "-m", f"asr_kd.{stage}", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: python -m asr_kd.{stage} ")


@dataclasses.dataclass
class Typed:
    """Fields of every type that stages use."""

    flag: bool = False
    """A switch."""
    count: int = 1
    """A number of things."""
    rate: float = 1.0
    """A rate."""
    preset: Literal["small", "large"] = "small"
    """A choice."""
    folder: Path | None = None
    """A folder."""
    rates: tuple[float, ...] = ()
    """Several rates."""
    folders: tuple[Path, ...] = ()
    """Several folders."""


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"flag": True, "count": 2, "rate": 3}, Typed(True, 2, 3.0)),
        ({"rate": "1e-7", "preset": "large"}, Typed(rate=1e-7, preset="large")),
        ({"folder": "a", "folders": ["b", "c"]}, Typed(folder=Path("a"), folders=(Path("b"), Path("c")))),
        ({"folder": None, "folders": "b"}, Typed(folders=(Path("b"),))),
        ({"rates": [1, "2e-1"]}, Typed(rates=(1.0, 0.2))),
        ({"rates": 3}, Typed(rates=(3.0,))),
    ],
)
def test_yaml_values_take_the_types_of_their_flags(values, expected):
    assert cli.build_config(Typed, values) == expected


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flag": "false"}, "flag must be true or false, not 'false'"),
        ({"flag": 1}, "flag must be true or false"),
        ({"count": 2.5}, "count must be a whole number, not 2.5"),
        ({"count": "two"}, "count must be a whole number"),
        ({"count": True}, "count must be a whole number"),
        ({"rate": True}, "rate must be a number"),
        ({"preset": "huge"}, "preset must be one of small, large"),
        ({"folder": 3}, "folder must be a path or empty"),
        ({"rates": ["fast"]}, "rates must be a list, each a number"),
    ],
)
def test_yaml_values_of_another_type_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        cli.build_config(Typed, values)
