"""Training, resuming, soft targets and students on a small real corpus."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from training import config, remark, store_config

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, stage_figures, write_json
from asr_kd.soft_targets import __main__ as soft_targets_stage
from asr_kd.train import __main__ as train
from asr_kd.train.loop import Trainer


def test_teachers_learn_and_differ(teachers):
    figures = [stage_figures(teachers / f"seed-{seed}") for seed in (0, 1)]
    assert all(f["dev_accuracy"] > 70 for f in figures)
    first, second = (load_file(teachers / f"seed-{seed}" / "model.safetensors") for seed in (0, 1))
    assert any((first[name] != second[name]).any() for name in first)
    assert any((teachers / "seed-0" / "tensorboard").iterdir())


def test_killed_training_resumes_to_the_same_weights(prepared, tmp_path):
    whole = Trainer(config(prepared, tmp_path / "whole"), 0)
    Trainer(config(prepared, tmp_path / "parts"), 0).train_epoch()  # and then it is killed
    resumed = Trainer(config(prepared, tmp_path / "parts"), 0)
    assert resumed.epoch == 1
    for trainer in (whole, resumed):
        while trainer.epoch < 3:
            trainer.train_epoch()
    expected, found = (load_file(trainer.out / "last.safetensors") for trainer in (whole, resumed))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


@pytest.mark.parametrize("hard_weight", [0.0, 0.5])
def test_student_learns_from_soft_targets(prepared, store, tmp_path, hard_weight):
    settings = config(
        prepared, tmp_path / "student", soft_targets=store, temperature=2.0, hard_weight=hard_weight, epochs=2
    )
    trainer = Trainer(settings, 0)
    trainer.train_epoch()
    trainer.train_epoch()
    assert trainer.log[1]["train_kl"] < trainer.log[0]["train_kl"]
    assert trainer.log[1]["dev_accuracy"] > 60
    assert read_json(trainer.out / "model.json")["soft_targets"]


def test_teachers_online_are_a_store_that_keeps_everything(prepared, teachers, tmp_path):
    """The student sees the same targets, but for the store's rounding."""
    everything = tmp_path / "store"
    soft_targets_stage.main(store_config(prepared, teachers, everything, top=6, floor=0.0, temperatures=(2.0,)))
    folders = (teachers / "seed-0", teachers / "seed-1")
    logs = []
    for name, source in (
        ("stored", {"soft_targets": everything}),
        ("online", {"teachers": folders, "temperature": 2.0}),
    ):
        trainer = Trainer(config(prepared, tmp_path / name, epochs=2, **source), 0)
        trainer.train_epoch()
        logs.append(trainer.log[0])
    for figure in ("train_kl", "train_soft", "train_loss"):
        assert logs[0][figure] == pytest.approx(logs[1][figure], rel=0.02)


def test_teachers_that_do_not_fit_are_refused(prepared, teachers, tmp_path):
    online = {"teachers": (teachers / "seed-0",), "temperature": 2.0}
    with pytest.raises(UserError, match=r"sees 20 \+ 1 \+ 5 frames.*--left"):
        Trainer(config(prepared, tmp_path / "narrow", left=4, **online), 0)
    shutil.copytree(teachers / "seed-0", tmp_path / "teacher")
    about = read_json(tmp_path / "teacher" / "model.json")
    write_json(tmp_path / "teacher" / "model.json", about | {"features": "others"})
    remark(tmp_path / "teacher")
    with pytest.raises(UserError, match="trained on other features"):
        Trainer(config(prepared, tmp_path / "student", teachers=(tmp_path / "teacher",)), 0)


def test_a_loss_that_is_not_finite_stops_and_is_never_finished(prepared, tmp_path, inline):
    settings = config(prepared, tmp_path / "net", learning_rate=1e30)
    with pytest.raises(UserError, match=r"is not finite in epoch .*lower --learning-rate"):
        train.main(settings)
    mark = read_json(tmp_path / "net" / "seed-0" / "stage.json")
    assert mark["status"] == "running"
    assert not list(tmp_path.rglob("*.safetensors"))
