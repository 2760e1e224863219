"""Training, resuming, soft targets and students on a small real corpus."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet
from safetensors.torch import load_file

from asr_kd import soft_targets, train
from asr_kd.features import Normaliser
from asr_kd.models import AcousticModel, MaskPool, Shape, load_model, posteriors
from asr_kd.soft_targets import SoftTargets
from asr_kd.storage import UserError, read_json, stage_figures
from asr_kd.train import Config
from asr_kd.trainer import Trainer


def config(prepared, out: Path, **changes) -> Config:
    settings = {"preset": "tiny", "epochs": 3, "batch_size": 64, "precision": "float32", "jobs": 1} | changes
    return Config(prepared.features, prepared.senones, out, **settings)


@pytest.fixture(scope="module")
def teachers(prepared, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("models") / "teachers"
    train.main(config(prepared, out, seeds=(0, 1)))
    return out


@pytest.fixture(scope="module")
def store(prepared, teachers, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("targets") / "store"
    soft_targets.main(store_config(prepared, teachers, out))
    return out


def store_config(prepared, teachers, out, top=4):
    models = (teachers / "seed-0", teachers / "seed-1")
    return soft_targets.Config(
        models, prepared.features, prepared.senones / "cuts_train.jsonl.gz", out, temperature=2.0, top=top, jobs=1
    )


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


def test_store_holds_the_ensemble_average(prepared, teachers, store):
    targets = SoftTargets(store, prepared.features)
    models = [load_model(teachers / f"seed-{seed}") for seed in (0, 1)]
    cut = CutSet.from_file(prepared.senones / "cuts_train.jsonl.gz")[3]
    expected = posteriors(models, Normaliser.load(prepared.features)(cut), temperature=2.0)
    classes, probabilities = targets.read(cut.id, len(expected))
    np.testing.assert_allclose(np.take_along_axis(expected, classes.astype(int), 1), probabilities, atol=0.02)
    dense = targets.dense(classes, probabilities)
    np.testing.assert_allclose(dense.sum(1), 1, atol=1e-6)
    assert (dense.argmax(1).numpy() == expected.argmax(1)).mean() > 0.98
    assert (dense >= 0).all()


@pytest.mark.parametrize("hard_weight", [0.0, 0.5])
def test_student_learns_from_soft_targets(prepared, store, tmp_path, hard_weight):
    settings = config(prepared, tmp_path / "student", soft_targets=store, hard_weight=hard_weight, epochs=2)
    trainer = Trainer(settings, 0)
    trainer.train_epoch()
    trainer.train_epoch()
    assert trainer.log[1]["train_kl"] < trainer.log[0]["train_kl"]
    assert trainer.log[1]["dev_accuracy"] > 60
    assert read_json(trainer.out / "model.json")["soft_targets"]


def test_store_of_other_teachers_is_refused(prepared, teachers, store, tmp_path):
    shutil.copytree(teachers, tmp_path / "teachers")
    soft_targets.main(store_config(prepared, tmp_path / "teachers", tmp_path / "store"))
    SoftTargets(tmp_path / "store", prepared.features)
    train.main(config(prepared, tmp_path / "teachers", seeds=(0,), epochs=1))
    with pytest.raises(UserError, match=r"other teachers \(seed-0 changed"):
        SoftTargets(tmp_path / "store", prepared.features)


def test_store_of_other_cuts_or_damaged_is_refused(prepared, store, tmp_path):
    targets = SoftTargets(store, prepared.features)
    with pytest.raises(UserError, match="no soft targets for nobody"):
        targets.read("nobody", 10)
    cut = CutSet.from_file(prepared.senones / "cuts_train.jsonl.gz")[0]
    with pytest.raises(UserError, match="frames for"):
        targets.read(cut.id, 3)
    shutil.copytree(store, tmp_path / "store")
    array = tmp_path / "store" / "shard-00000" / "classes.npy"
    array.write_bytes(array.read_bytes()[:50])
    with pytest.raises(UserError, match="damaged"):
        SoftTargets(tmp_path / "store", prepared.features).read(cut.id, cut.num_frames)


def test_more_classes_kept_than_there_are_is_refused(prepared, teachers, tmp_path):
    with pytest.raises(UserError, match="exceeds the 6 senones"):
        soft_targets.main(store_config(prepared, teachers, tmp_path / "store", top=7))


def test_damaged_checkpoint_is_refused(teachers, tmp_path):
    shutil.copytree(teachers / "seed-0", tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"damaged.*train again"):
        load_model(tmp_path / "model")
    weights.unlink()
    with pytest.raises(UserError, match="missing"):
        load_model(tmp_path / "model")


def test_dropout_keeps_the_mean_and_its_gradient():
    masks = MaskPool(0.25)
    masks.reseed(1)
    mask = masks.mask(torch.zeros(500, 400))
    assert mask.mean().item() == pytest.approx(1, abs=0.02)
    assert mask.unique().tolist() == pytest.approx([0, 4 / 3])
    model = AcousticModel(Shape(2, 32, 5, dropout=0.25)).double()
    torch.nn.init.normal_(model.output.weight)
    windows = torch.randn(8, 26 * 40, dtype=torch.float64)

    def run(weight):
        model.masks.reseed(3)
        return torch.func.functional_call(model, {"hidden.0.weight": weight}, windows).pow(2).sum()

    weight = model.hidden[0].weight.detach().clone().requires_grad_()
    run(weight).backward()
    step = torch.zeros_like(weight)
    step[3, 7] = 1e-6
    slope = (run(weight + step) - run(weight - step)) / 2e-6
    assert weight.grad[3, 7].item() == pytest.approx(slope.item(), rel=1e-4)
