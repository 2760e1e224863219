"""The pages about teachers and training loops of one's own: their code and commands run as they are printed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet
from pages import fenced, run_commands, run_python

from asr_kd.common.storage import read_json, stage_figures
from asr_kd.soft_targets import SoftTargets

LOOP, TEACHER = "how-to-training-loop.md", "how-to-teacher.md"


@pytest.fixture
def experiment(prepared, teachers, store, tmp_path, monkeypatch, inline) -> Path:
    """The folders of the pages' experiment, seen from the current one."""
    exp = tmp_path / "recipes" / "librispeech" / "exp" / "embedded"
    exp.mkdir(parents=True)
    (exp / "gmm").symlink_to(prepared.senones)
    (exp / "features").symlink_to(prepared.features)
    (exp / "teachers").symlink_to(teachers)
    (exp / "soft_targets").symlink_to(store)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    return exp


def names() -> dict:
    """What the first block of the page defines."""
    found: dict = {}
    exec(fenced(LOOP, "python")[0], found)
    return found


def test_a_loop_with_lhotse_and_one_with_several_sessions(experiment, capsys):
    found = run_python(LOOP, "Lhotse and plain torch", names())
    assert 0 < found["loss"].kl < 0.1  # from 0.7
    assert found["loss"].hard < 1.2 and found["num_classes"] == 6
    assert "KL(teacher ‖ student)" in capsys.readouterr().out
    assert len(SoftTargets("my_store")) == len(found["cuts"]) == 24
    run_python(LOOP, "Several processes, later sessions", found)
    assert len(SoftTargets("shared_store")) == 3


def test_a_loop_of_transformers(experiment):
    found = run_python(LOOP, "The Trainer of transformers", names())
    kl = [entry["kl"] for entry in found["trainer"].state.log_history if "kl" in entry]
    assert len(kl) == 40 and sum(kl[-5:]) < 0.5 * sum(kl[:5])
    assert len(SoftTargets("ctc_store")) == len(found["examples"]) == 24


def test_a_teacher(experiment, capsys):
    cuts = CutSet.from_file(experiment / "gmm" / "cuts_train.jsonl.gz")
    labels = {cut.id: np.eye(6, dtype=np.float32)[cut.load_senones()] for cut in cuts}
    for name, step in (("my_posteriors", 1), ("slow_posteriors", 2)):
        (experiment.parents[3] / name).mkdir()
        for key, classes in labels.items():
            np.save(experiment.parents[3] / name / f"{key}.npy", 0.9 * classes[::step] + 0.1 / 6)
    modules = run_commands(TEACHER, "Its posteriors")
    assert modules == ["asr_kd.soft_targets", "asr_kd.train", "asr_kd.soft_targets", "asr_kd.train"]
    for student in ("my_student", "my_other_student"):
        assert stage_figures(Path(student) / "seed-0")["dev_accuracy"] > 60
    printed = capsys.readouterr().out
    assert "my_posteriors: probabilities (recognised by" in printed and "skipped" not in printed.split("my_targets")[-1]
    run_commands(TEACHER, "Another frame rate")
    rows = SoftTargets("slow_targets").read(key)
    targets = rows.batch(np.arange(len(rows)))
    found = targets.classes.gather(1, targets.probabilities.argmax(1, keepdim=True))[:, 0].numpy()
    assert (found == labels[key].argmax(1)).mean() > 0.98


def test_labels_from_phones_with_times(experiment):
    with open("phones.ctm", "w") as file:
        for split in ("train", "dev", "test"):
            for cut in CutSet.from_file(experiment / "gmm" / f"cuts_{split}.jsonl.gz"):
                for number, senone in enumerate(cut.load_senones()[10::20]):
                    file.write(f"{cut.id} 1 {0.2 * number:.2f} 0.2 {'ABCDEF'[senone]}\n")
    run_commands(TEACHER, "Labels first")
    assert read_json("my_labels/hmm.json")["num_pdfs"] == 3 * 7
    aligned, truth = (
        CutSet.from_file(Path(folder, "cuts_dev.jsonl.gz")) for folder in ("my_labels", experiment / "gmm")
    )
    for cut, expected in zip(aligned, truth, strict=True):
        assert ((cut.load_senones() // 3 - 1) == expected.load_senones()).all()


def test_reading_a_store(experiment):
    found = run_python("soft_targets.md", "Reading a store", {})
    assert found["lengths"].tolist() == [100] * 4 and found["targets"].probabilities.shape[:2] == (4, 100)
