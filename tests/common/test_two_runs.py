"""Two runs at once in one experiment, with the same and with other settings."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asr_kd.check.experiment import Check
from asr_kd.common import locks
from asr_kd.common.checksums import checksum
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage

#: The first stages of a recipe, one after the other; the first failure ends it.
RECIPE = """
import sys
from training import inline_jobs
from asr_kd.common import locks
from asr_kd.common.cli import run
from asr_kd.corpora import __main__ as corpora
from asr_kd.features import __main__ as features
from asr_kd.lang import __main__ as lang
corpus, exp, normalise = sys.argv[1:]
locks.WAIT_SECONDS = 3.0
parts = ["--corpus-dir", corpus, "--train", "train-x", "--dev", "dev-x", "--test", "test-x"]
with inline_jobs():
    run(corpora.Config, corpora.main, ["--out", f"{exp}/data", *parts])
    settings = ["--data", f"{exp}/data", "--normalise", normalise]
    run(features.Config, features.main, ["--out", f"{exp}/features", *settings])
    run(lang.Config, lang.main, ["--data", f"{exp}/data", "--out", f"{exp}/lang"])
"""


def two_runs(prepared, exp: Path, *normalise: str) -> list[tuple[int, str]]:
    """Exit status and output of each."""
    command = [sys.executable, "-c", RECIPE, str(prepared.data.parent / "corpus"), str(exp)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    runs = [subprocess.Popen([*command, value], env=environment, **options) for value in normalise]
    outputs = [run.communicate()[0] for run in runs]
    return [(run.returncode, output) for run, output in zip(runs, outputs, strict=True)]


def test_with_the_same_settings_both_end_with_the_same_files(prepared, tmp_path):
    ends = two_runs(prepared, tmp_path / "exp", "utterance", "utterance")
    assert [code for code, _ in ends] == [0, 0], ends
    check = Check(tmp_path / "exp")
    check.run()
    assert len(check.folders) == 3 and not check.faults, check.report()
    for name in ("cmvn.json", "cmvn_speakers.npy"):
        assert checksum(tmp_path / "exp" / "features" / name) == checksum(prepared.features / name)
    assert not list((tmp_path / "exp").rglob(".lock"))


def test_with_other_settings_a_run_waits_or_names_the_other(prepared, tmp_path):
    ends = two_runs(prepared, tmp_path / "exp", "speaker", "utterance")
    assert any(code == 0 for code, _ in ends), ends
    for code, output in ends:
        assert "Traceback" not in output
        assert code == 0 or "is in use by process" in output or "made again by another process" in output
    check = Check(tmp_path / "exp")
    check.run()
    assert not check.faults, check.report()


READER = """
import sys
from pathlib import Path
from asr_kd.common.storage import Stage
stage = Stage("reader", Path(sys.argv[2]), {}, [Path(sys.argv[1])])
assert stage.begin()
print("begun", flush=True)
sys.stdin.readline()
stage.finish()
"""


def test_a_folder_is_not_made_again_while_others_read_it(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.2)
    source = Stage("source", tmp_path / "source", {"size": 1})
    assert source.begin()
    (source.out / "result").write_text("x")
    source.finish()
    command = [sys.executable, "-c", READER, str(source.out)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    readers = [subprocess.Popen([*command, str(tmp_path / name)], **pipes) for name in ("one", "two")]
    try:
        assert [reader.stdout.readline() for reader in readers] == ["begun\n"] * 2
        assert not Stage("source", source.out, {"size": 1}).begin(), "who has the same settings need not wait"
        locks.acquire(source.out, lambda: "done")  # nor if the work was done while it waited for the owner
        for reader in readers:
            with pytest.raises(UserError, match=rf"is in use by .*process {reader.pid} on .*, which reads it, since"):
                Stage("source", source.out, {"size": 2}).begin()
            assert (source.out / "result").read_text() == "x"
            reader.communicate("finish\n")
    finally:
        for reader in readers:
            reader.kill()
    assert not (source.out / ".lock").exists()
    other = Stage("source", source.out, {"size": 2})
    assert other.begin() and not (source.out / "result").exists()
    other.finish()
