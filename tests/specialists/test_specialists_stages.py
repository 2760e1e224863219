"""The stages of specialists, from a folder of images to a student."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet
from PIL import Image
from training import config

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.decode.acoustics import load_scorer
from asr_kd.mnist.digits.__main__ import main as write_digits
from asr_kd.mnist.digits.config import Config as DigitsConfig
from asr_kd.mnist.digits.dataset import load_digits
from asr_kd.models.checkpoints import load_log_prior, load_model, warm_start
from asr_kd.specialists.assign import __main__ as assign
from asr_kd.specialists.classify import __main__ as classify
from asr_kd.specialists.evaluate import __main__ as evaluate
from asr_kd.specialists.examples import ImageExamples
from asr_kd.specialists.files import load_results, specialist_folders
from asr_kd.specialists.images import __main__ as images
from asr_kd.specialists.images.dataset import EXTRA, Images
from asr_kd.specialists.report import __main__ as report
from asr_kd.specialists.report.tables import paired_gain
from asr_kd.specialists.specialist import SpecialClasses
from asr_kd.specialists.targets import __main__ as targets
from asr_kd.specialists.targets.compute import ImageTargets
from asr_kd.specialists.train import __main__ as train
from asr_kd.train import __main__ as speech_train

CLASSES, SIZE = 12, 8


def draw(folder: Path, each: int, seed: int) -> None:
    """Draw four families of three classes: a family is a bright quarter, a class is a bright spot in it."""
    order = np.random.default_rng(seed)
    for label in range(CLASSES):
        family, member = divmod(label, 3)
        (folder / f"class-{label:02d}").mkdir(parents=True)
        for number in range(each):
            picture = order.normal(60, 30, (SIZE, SIZE))
            top, left = 4 * (family // 2), 4 * (family % 2)
            picture[top : top + 4, left : left + 4] += 70
            picture[top + member, left + member] += 100
            image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
            image.save(folder / f"class-{label:02d}" / f"{number}.png")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("specialists")
    draw(root / "train", 40, 0)
    draw(root / "test", 15, 1)
    (root / "train" / "class-00" / "broken.png").write_bytes(b"no image")
    images.main(images.Config(root / "images", train=root / "train", test=root / "test", size=SIZE))
    classify.main(small(root, "generalist", seeds=(0, 1)))
    where = {"images": root / "images", "generalist": root / "generalist" / "seed-0"}
    assign.main(assign.Config(**where, out=root / "clusters", count=4))
    train.main(train.Config(**where, clusters=root / "clusters", out=root / "specialists", epochs=4, jobs=2))
    return root


def small(root: Path, name: str, **options) -> classify.Config:
    settings = {"layers": 1, "width": 32, "epochs": 20, "batch_size": 64, "learning_rate": 5e-3, "jobs": 2}
    return classify.Config(root / "images", root / name, **settings, **options)


def test_broken_images_are_skipped_and_listed(study: Path) -> None:
    assert "broken.png" in (study / "images" / "skipped_train.tsv").read_text()
    assert np.load(study / "images" / "train_labels.npy").tolist() == sorted(40 * list(range(CLASSES)))


def test_families_become_specialists(study: Path) -> None:
    groups = read_json(study / "clusters" / "clusters.json")
    assert sorted(map(tuple, groups["clusters"])) == [(0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)]
    assert groups["names"][0][0].startswith("class-")
    for number in range(4):
        figures = read_json(study / "specialists" / f"specialist-{number:02d}" / "stage.json")["figures"]
        assert figures["classes"] == 3 and figures["examples"] == 240 and figures["peak_mb"] > 0


def test_specialists_are_evaluated_and_distilled(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = {"images": study / "images", "generalist": study / "generalist" / "seed-0"}
    specialists = {"specialists": study / "specialists"}
    targets.main(targets.Config(**where, **specialists, out=study / "store", jobs=1))
    classify.main(small(study, "student", soft_targets=study / "store", hard_weight=0.1))
    others = (
        f"student={study / 'student' / 'seed-0'}",
        f"two={study / 'generalist' / 'seed-0'},{study / 'generalist' / 'seed-1'}",
    )
    evaluate.main(evaluate.Config(**where, **specialists, others=others, out=study / "results"))
    found = load_results(study / "results")
    right = np.load(study / "results" / "right.npy")
    assert found["examples"] == right.shape[1] == 15 * CLASSES
    assert list(found["systems"].values()) == right.sum(1).tolist()
    assert all(count > 0.5 * found["examples"] for count in found["systems"].values())
    assert found["by_specialists_covering"][0]["specialists"] == 1
    assert sum(row[0] for row in found["conditional"]) == found["examples"]
    assert found["gap"] < 1e-5
    report.main(report.Config((study / "results",), study / "clusters", study / "specialists", study / "report"))
    assert "| student |" in (study / "report" / "report.md").read_text()
    assert (study / "report" / "figures" / "likeness.png").is_file()
    capsys.readouterr()
    train.main(train.Config(**where, clusters=study / "clusters", out=study / "specialists", epochs=4, jobs=2))
    assert capsys.readouterr().out.count("up to date") == 4  # nothing is trained again


def test_a_dask_cluster_trains_the_same_specialists(study: Path, tmp_path: Path, scheduler: str) -> None:
    where = {"images": study / "images", "generalist": study / "generalist" / "seed-0", "clusters": study / "clusters"}
    train.main(train.Config(**where, out=tmp_path / "far", epochs=4, scheduler=scheduler))
    for number in range(4):
        near, far = (
            folder / f"specialist-{number:02d}/model.safetensors"
            for folder in (study / "specialists", tmp_path / "far")
        )
        assert near.read_bytes() == far.read_bytes()


def test_soft_targets_of_several_generalists(study: Path) -> None:
    folders = [study / "generalist" / f"seed-{seed}" for seed in range(2)]
    config = targets.Config(
        images=study / "images", generalist=folders[0], more=(folders[1],), out=study / "plain", jobs=1
    )
    targets.main(config)
    stored = ImageTargets(study / "plain", study / "images").batch(np.arange(20)).dense(CLASSES)
    np.testing.assert_allclose(stored.sum(1), 1, atol=1e-3)


def test_composed_digits_have_distorted_variants(tmp_path: Path) -> None:
    write_digits(DigitsConfig(tmp_path / "digits"))
    flags = {"digits": tmp_path / "digits", "test_per_class": 2}
    images.main(images.Config(tmp_path / "images", **flags, per_class=3, more_per_class=1, variants=2))
    train, test = load_digits(tmp_path / "digits")
    for split, digits, count in (("train", train, 3), ("test", test, 2), (EXTRA, train, 1)):
        found = Images(tmp_path / "images", split)
        assert np.bincount(found.labels).tolist() == [count] * 1000
        chosen = np.load(tmp_path / "images" / f"{split}_digits.npy")
        assert (digits.labels[chosen % len(digits)] @ [100, 10, 1] == found.labels).all()
        pictures = found.inputs(torch.arange(50), torch.float32, "cpu").view(50, 3, 28, 28)
        plain = torch.from_numpy(digits.images[chosen[:50] % len(digits)] / 255.0).float()
        distance = (pictures - plain).abs().mean().item()
        assert distance == 0 if split == "test" else 0.01 < distance < 0.15  # distorted, but the same digits
    examples = ImageExamples(tmp_path / "images")
    assert len(examples.loader(100, torch.float32, "cpu")) == 30
    special = SpecialClasses(np.arange(500), examples.counts)
    assert len(examples.loader(100, torch.float32, "cpu", special)) == 10  # the extra images


def test_networks_can_start_from_another(study: Path, tmp_path: Path) -> None:
    other = study / "generalist" / "seed-0"
    options = {"epochs": 1, "learning_rate": 1e-9, "batch_norm": True}
    classify.main(dataclasses.replace(small(study, "longer", start_from=other), **options))
    before, after = load_model(other), load_model(study / "longer" / "seed-0")
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(before.parameters(), after.parameters(), strict=True))
    wider = after.network.with_args(width=33, layers=2)
    assert warm_start(other, wider.with_args(dropout=0.4)).dropout == 0.4
    assert warm_start(other, wider).width == 32
    with pytest.raises(UserError, match="other inputs or classes"):
        warm_start(other, dataclasses.replace(wider, num_senones=7))


def test_invalid_flags_and_files_are_refused(study: Path, tmp_path: Path) -> None:
    where = {"images": study / "images", "generalist": study / "generalist" / "seed-0"}
    with pytest.raises(UserError, match="30 specialists for 12 classes"):
        assign.main(assign.Config(**where, out=tmp_path / "many"))
    with pytest.raises(UserError, match="either --images, or"):
        assign.main(assign.Config(generalist=where["generalist"], out=tmp_path / "none"))
    with pytest.raises(UserError, match="either --digits, or"):
        images.main(images.Config(tmp_path / "images"))
    (tmp_path / "train" / "empty").mkdir(parents=True)
    (tmp_path / "train" / "other").mkdir()
    with pytest.raises(UserError, match="no readable image"):
        images.main(images.Config(tmp_path / "images", train=tmp_path / "train", test=study / "test"))
    with pytest.raises(UserError, match="--others takes NAME=DIR"):
        evaluate.main(evaluate.Config(**where, specialists=study / "specialists", others=("x",), out=tmp_path / "out"))


@pytest.mark.parametrize("kind", ["dnn", "gru"])
def test_senones_have_specialists(prepared, tmp_path: Path, inline, kind: str) -> None:
    other = (
        {}
        if kind == "dnn"
        else {
            "network": kind,
            "network_args": ("width=32", "layers=1"),
            "delay": 2,
            "preset": "medium",
            "batch_size": 512,
        }
    )
    speech_train.main(config(prepared, tmp_path / "nets", seeds=(0, 1), **other))
    network, second = (tmp_path / "nets" / f"seed-{seed}" for seed in (0, 1))
    where = {"features": prepared.features, "cuts": prepared.senones, "generalist": network}
    assign.main(assign.Config(**where, out=tmp_path / "clusters", count=2))
    train.main(train.Config(**where, clusters=tmp_path / "clusters", out=tmp_path / "specialists", epochs=1, jobs=1))
    specialists = specialist_folders(tmp_path / "specialists")
    assert len(specialists) == 2
    targets.main(targets.Config(**where, specialists=tmp_path / "specialists", out=tmp_path / "store", jobs=1))
    speech_train.main(config(prepared, tmp_path / "student", soft_targets=tmp_path / "store", epochs=1))
    settings = {"specialists": tmp_path / "specialists", "out": tmp_path / "results"}
    evaluate.main(evaluate.Config(**where, **settings, others=(f"student={tmp_path / 'student' / 'seed-0'}",)))
    right, units = (np.load(tmp_path / "results" / f"{name}.npy") for name in ("right", "units"))
    cuts = list(CutSet.from_file(prepared.senones / "cuts_test.jsonl.gz"))
    assert np.bincount(units).tolist() == [cut.num_frames for cut in cuts]
    scorer = load_scorer([network], prepared.features, senones_of(prepared), specialists=specialists)
    found = np.concatenate([scorer(cut) for cut in cuts]) + load_log_prior(network)
    np.testing.assert_allclose(np.exp(found).sum(1), 1, atol=1e-4)
    senones = np.concatenate([cut.load_custom("senones") for cut in cuts])
    same = (found.argmax(1) == senones) == right[1]
    assert same.mean() > 0.99  # evaluation uses bfloat16 where the processor supports it
    with pytest.raises(UserError, match="combined with one network"):
        load_scorer([network, second], prepared.features, senones_of(prepared), specialists=specialists)


def senones_of(prepared) -> int:
    return int(read_json(prepared.senones / "hmm.json")["num_pdfs"])


def test_paired_gain_is_computed_over_units() -> None:
    random = np.random.default_rng(0)
    one, other = random.random(4000) < 0.7, random.random(4000) < 0.73
    gain, spread, p = paired_gain(one, other, np.arange(4000))
    better, worse = int((other & ~one).sum()), int((one & ~other).sum())
    assert gain == pytest.approx(100 * (better - worse) / 4000)
    variance = (better + worse) / 4000 - (gain / 100) ** 2
    assert spread == pytest.approx(196 * np.sqrt(variance / 4000), rel=1e-3)
    # Five copies of an example carry no more information than one.
    assert paired_gain(one.repeat(5), other.repeat(5), np.arange(4000).repeat(5)) == pytest.approx((gain, spread, p))
    assert paired_gain(one, one, np.arange(4000)) == (0, 0, 1)
