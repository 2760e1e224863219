"""The main job itself, every stage, on a few minutes of embedded speech: through real GMM-HMMs and real k2."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from pages import fenced

ROOT = Path(__file__).parents[1]


def recipe(exp: Path, *flags: str) -> str:
    command = ["bash", ROOT / "recipes/librispeech/run.sh", "--conf", ROOT / "tests/tiny.yaml", "--exp", exp]
    done = subprocess.run(
        [*map(str, command), "--teachers", "2", "--seeds", "1", *flags],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Path:
    exp = tmp_path_factory.mktemp("recipe") / "exp"
    recipe(exp)
    return exp


def test_table_has_every_system(experiment):
    report = (experiment / "report" / "report.md").read_text()
    rows = ("triphone GMM", "same, adapted to the speakers", "baseline DNN", "ensemble", "distilled, same size")
    for row in (*rows, "quarter size, distilled"):
        assert re.search(rf"^\| *{row}", report, re.MULTILINE), row
    assert "not run" not in report
    page = (experiment / "report" / "index.html").read_text()
    assert page.count("<svg") >= 4
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_every_utterance_has_a_hypothesis(experiment):
    summary = json.loads((experiment / "data" / "summary.json").read_text())
    for folder in (experiment / "decode").iterdir():
        lines = (folder / "hyp_test.tsv").read_text().splitlines()
        assert len(lines) == summary["test"]["utterances"]


def test_networks_beat_chance_and_decoding_finds_words(experiment):
    accuracy = json.loads((experiment / "accuracy" / "ensemble-0" / "accuracy.json").read_text())["test"]
    assert accuracy["correct"] / accuracy["frames"] > 0.15
    words = (experiment / "decode" / "ensemble-0" / "hyp_test.tsv").read_text().split()
    assert len(words) > 60


def test_second_run_does_nothing(experiment):
    before = {path: path.stat().st_mtime_ns for path in experiment.rglob("*.json")}
    output = recipe(experiment)
    lines = [line for line in output.splitlines() if line]
    assert sum("up to date" in line for line in lines) > 15
    assert lines[-1].startswith("to recognise a recording: ")
    assert all(line.startswith("== ") or "up to date" in line for line in lines[:-1])
    assert before == {path: path.stat().st_mtime_ns for path in experiment.rglob("*.json")}


def test_study_runs_every_stage_it_may_call(experiment):
    output = recipe(experiment, "--study", str(ROOT / "tests/study/small_study.yaml"))
    assert "left in all" in output
    report = experiment / "studies/small_study/report"
    text = (report / "report.md").read_text()
    for row in ("one network", "both", "aligned again", "half of the speakers"):
        assert re.search(rf"^\| {row}", text, re.MULTILINE), row
    assert "Frame accuracy" in text
    results = json.loads((report / "results.json").read_text())
    assert not results["not_run"]
    assert {row["name"]: bool(row["words"]) for row in results["rows"]}["half"]
    assert {path.stem for path in (report / "figures").glob("*.png")} >= {
        "small_study-grid-0",
        "small_study-lines-1",
        "small_study-dev-accuracy",
    }
    assert "A small study" in (experiment / "studies/index.html").read_text()
    again = recipe(experiment, "--study", str(ROOT / "tests/study/small_study.yaml"))
    assert "epoch" not in again and again.count("up to date") > 15


def test_a_network_of_ones_own_teaches_and_is_decoded(experiment, tmp_path):
    """The class and the commands of the page."""
    (code,) = fenced("how-to-network.md", "python")
    (tmp_path / "mine.py").write_text(code)
    blocks = fenced("how-to-network.md", "bash")
    commands = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    assert len(commands) == 6
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    for command in commands:
        _, *words = shlex.split(command.replace("EXP", str(experiment)))
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    hypotheses = [experiment / folder / "hyp_test.tsv" for folder in ("mine_decoded", "mine_student_decoded")]
    assert all(len(path.read_text().split()) > 60 for path in hypotheses)


def test_audio_files_are_decoded(experiment, tmp_path):
    audio = sorted((experiment / "data").rglob("*.flac"))[:2]
    python = os.environ.get("ASR_KD_PYTHON", str(ROOT / ".venv/bin/python"))
    flags = ["--model", experiment / "student/seed-0", "--graph", experiment / "graph", "--features"]
    flags += [experiment / "features", "--tuned", experiment / "tuned/tuned.json"]
    outputs = []
    for place in (flags, [experiment], [experiment / "bundle/student"], [tmp_path]):
        command = [python, "-m", "asr_kd.decode", *place, *audio]
        outputs.append(subprocess.run(command, capture_output=True, text=True, check=False))
    lines = outputs[0].stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(path) for path in audio]
    assert outputs[1].stdout == outputs[0].stdout and "student/seed-0" in outputs[1].stderr
    assert [line.split("\t")[0] for line in outputs[2].stdout.splitlines()] == [str(path) for path in audio]
    assert outputs[3].returncode == 1 and "is no bundle, and no experiment" in outputs[3].stderr


def test_damaged_inputs_are_refused_listed_or_harmless(experiment, tmp_path):
    command = [sys.executable, ROOT / "tools/drill.py", "--out", tmp_path, "--exp", experiment, "--parts", "inputs"]
    done = subprocess.run(
        [*command, "--cases", "8", "--seed", "5"], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    rows = [json.loads(line) for line in (tmp_path / "inputs.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and {row["outcome"] for row in rows} <= {"used", "listed", "refused"}
    assert "refused" in {row["outcome"] for row in rows}
