"""MNIST: data, shifts and distortions, bias correction, and small networks on the real digits."""

import dataclasses
import gzip
import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from asr_kd.common.errors import UserError
from asr_kd.common.storage import stage_figures
from asr_kd.mnist.__main__ import main
from asr_kd.mnist.config import Config
from asr_kd.mnist.digits.__main__ import main as write_digits
from asr_kd.mnist.digits.config import Config as DigitsConfig
from asr_kd.mnist.digits.dataset import FILES, ArrayUnpickler, Digits, as_idx, load_digits, parse_idx, read_package
from asr_kd.mnist.loader import DigitLoader, Teachers, distort
from asr_kd.mnist.report import biases
from asr_kd.mnist.study.networks import HELD_OUT, LABELS, network_settings, student_names
from asr_kd.mnist.training import TEST_LOGITS, count_errors, limit_norms, load_logits
from asr_kd.models.dnn import DNN


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mnist")
    write_digits(DigitsConfig(folder))
    return folder


@pytest.fixture(scope="module")
def teacher(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "seed-0"
    main(Config(data, out, width=100, epochs=3, dropout=0.1, input_dropout=0.1, max_norm=2.0, jitter=1))
    return out


def test_the_package_contains_all_of_mnist(data: Path) -> None:
    train, test = load_digits(data)
    assert train.images.shape == (60_000, 28, 28) and test.images.shape == (10_000, 28, 28)
    assert np.bincount(test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert len(train.only((7, 8))) == 6265 + 5851


def test_files_may_be_compressed(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in FILES:
        spelt = name.replace("-idx", ".idx") + ".gz"
        (tmp_path / spelt).write_bytes(gzip.compress((data / name).read_bytes(), 1))
    write_digits(DigitsConfig(tmp_path / "out", tmp_path))
    assert all((tmp_path / "out" / name).read_bytes() == (data / name).read_bytes() for name in FILES)
    write_digits(DigitsConfig(tmp_path / "out", tmp_path))
    assert "up to date" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["missing", "truncated", "tampered", "truncated gzip", "another"])
def test_bad_files_are_refused(data: Path, tmp_path: Path, damage: str) -> None:
    name = "t10k-labels-idx1-ubyte"
    for other in FILES:
        (tmp_path / other).symlink_to(data / other)
    content = (data / name).read_bytes()
    (tmp_path / name).unlink()
    if damage == "truncated":
        (tmp_path / name).write_bytes(content[:-1])
    elif damage == "tampered":
        (tmp_path / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "truncated gzip":
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content)[:100])
    elif damage == "another":
        (tmp_path / name).write_bytes(as_idx(np.zeros(10_000)))
    with pytest.raises(UserError, match=f"{name}.* is missing|{name}.*: it is damaged, or not MNIST"):
        load_digits(tmp_path)


def test_idx_files_round_trip() -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert (parse_idx(as_idx(array), "x") == array).all()
    for bad in (b"", b"\0\0\x08", as_idx(array)[:-1], b"\1" + as_idx(array)[1:]):
        with pytest.raises(UserError, match="x is not an idx file"):
            parse_idx(bad, "x")


def test_only_arrays_are_unpickled(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="do not trust"):
        ArrayUnpickler(io.BytesIO(pickle.dumps(Path("x")))).load()
    (tmp_path / "mnist.pkl.gz").write_bytes(gzip.compress(pickle.dumps([])))
    with pytest.raises(UserError, match="install that version again"):
        read_package(tmp_path / "mnist.pkl.gz")


def test_jitter_shifts_images(data: Path) -> None:
    _, test = load_digits(data)
    few = Digits(test.images[:50], np.arange(50))
    shifts = set()
    for batch in DigitLoader(few, 20, jitter=2).epoch(0):
        for image, number in zip(batch.inputs.view(-1, 28, 28), batch.labels, strict=True):
            padded = np.pad(few.images[number], 4) / np.float32(255)
            same = [
                (y, x)
                for y in range(2, 7)
                for x in range(2, 7)
                if np.array_equal(image.numpy(), padded[y : y + 28, x : x + 28])
            ]
            assert same
            shifts.update(same)
    assert len(shifts) > 12
    still = torch.cat([batch.inputs for batch in DigitLoader(few, 20).epoch(0)])
    assert torch.equal(still.sort(0).values, torch.from_numpy(few.images).flatten(1).div(255).sort(0).values)


def test_distortion_displaces_points() -> None:
    """In an image that encodes each pixel's position: by the given deviation at the points, and smoothly in between."""
    ramp = torch.linspace(0, 1, 28).expand(28, 28).reshape(1, 784)
    images = ramp.expand(3000, -1)
    assert torch.allclose(distort(images[:2], 0.0, torch.Generator()), images[:2], atol=1e-5)
    found = distort(images, 1.5, torch.Generator().manual_seed(0))
    assert torch.equal(found, distort(images, 1.5, torch.Generator().manual_seed(0)))
    moved = 27 * (found - ramp).view(-1, 28, 28)
    assert moved[:, [9, 9, 18, 18], [9, 18, 9, 18]].std(0).tolist() == pytest.approx([1.5] * 4, rel=0.05)
    assert moved[:, 9:19, 9:19].diff(dim=1).abs().max() < 1.5


@pytest.mark.parametrize("bend", [0.0, 1.0])
def test_soft_targets_are_those_of_the_augmented_image(data: Path, teacher: Path, bend: float) -> None:
    _, test = load_digits(data)
    teachers = Teachers([teacher], 4.0, torch.float32, "cpu")
    loader = DigitLoader(Digits(test.images[:60], test.labels[:60]), 25, jitter=1, bend=bend, teachers=teachers)
    for epoch in range(6):  # 9 shifts: after six epochs most soft targets are cached, but not all
        for batch in loader.epoch(epoch):
            torch.testing.assert_close(batch.soft, teachers(batch.inputs))


def test_offsets_count_errors() -> None:
    random = np.random.default_rng(0)
    logits, labels = random.normal(size=(200, 10)), random.integers(0, 10, 200)
    for digits in ((3,), (7, 8)):
        offsets = biases.OFFSETS[::20]
        for offset, found in zip(offsets, biases.errors_at(offsets, digits, logits, labels), strict=True):
            moved = logits.copy()
            moved[:, digits] += offset
            assert found == (moved.argmax(1) != labels).sum()


def test_a_biased_digit_is_corrected() -> None:
    labels = np.tile(np.arange(10), 30)
    logits = np.random.default_rng(0).normal(size=(300, 10)) + 8 * np.eye(10)[labels]
    logits[:, 3] -= 9
    found = biases.correct((3,), logits[:150], labels[:150], logits[150:], labels[150:])
    assert 4 < found.offset < 12 and found.own_errors[0] > 5 and found.own_errors[1] <= 1
    assert found.errors[1] == found.test_errors[biases.OFFSETS.tolist().index(found.offset)]


def test_weight_norms_are_limited() -> None:
    model = DNN(20, 10, layers=2, width=6, left=0, right=0)
    before = [layer.weight.norm(dim=1) for layer in model.hidden]
    limit_norms(model, 1.0)
    for layer, norms in zip(model.hidden, before, strict=True):
        torch.testing.assert_close(layer.weight.norm(dim=1), norms.clamp(max=1))


def test_training_learns_and_is_reproducible(data: Path, teacher: Path, tmp_path: Path) -> None:
    _, test = load_digits(data)
    found = np.load(teacher / TEST_LOGITS)
    assert stage_figures(teacher)["test_errors"] == count_errors(found, test) < 800
    assert np.array_equal(load_logits(teacher, test), found)
    settings = {"width": 30, "epochs": 1, "jitter": 2, "dropout": 0.2, "teachers": (teacher,), "temperature": 4.0}
    for name in ("a", "b"):
        main(Config(data, tmp_path / name, **settings))  # type: ignore[arg-type]
    assert np.array_equal(np.load(tmp_path / "a" / TEST_LOGITS), np.load(tmp_path / "b" / TEST_LOGITS))


@pytest.mark.parametrize("temperature", [1.0, 20.0, np.inf])
def test_soft_targets_need_no_labels(data: Path, teacher: Path, tmp_path: Path, temperature: float) -> None:
    main(Config(data, tmp_path / "s", width=50, epochs=2, teachers=(teacher,), temperature=temperature, hard_weight=0))
    assert stage_figures(tmp_path / "s")["test_errors"] < 1500


def test_a_digit_missing_from_the_transfer_set(data: Path, teacher: Path, tmp_path: Path) -> None:
    """Soft targets convey what a three looks like; labels alone do not."""
    train, test = load_digits(data)
    config = Config(data, tmp_path / "s", width=100, epochs=4, digits=(0, 1, 2, 4, 5, 6, 7, 8, 9), teachers=(teacher,))
    main(config)
    found = biases.correct(
        (3,), load_logits(config.out, train), train.labels, np.load(config.out / TEST_LOGITS), test.labels
    )
    assert found.offset > 0 and found.own_errors[1] < min(300, found.own_errors[0])
    hard = dataclasses.replace(config, out=tmp_path / "h", teachers=(), epochs=1)
    main(hard)
    assert count_errors(np.load(hard.out / TEST_LOGITS), test) > 1000


def test_the_study_labels_every_network() -> None:
    names = list(student_names((1, 2, 3, 4, 5), quick=False))
    assert len(names) == len(set(names)) == 1 + 3 * 11 + 1 + 1 + 6 + 5 + 5
    assert (
        network_settings("width-30-t-2.5")["temperature"] == 2.5 and network_settings("width-30-t-2.5")["width"] == 30
    )
    assert network_settings("matched-t-inf")["temperature"] == np.inf
    assert set(names) - set(LABELS) == {name for name in names if name.startswith(("width-", HELD_OUT))}
    assert network_settings("held-out-jittered") == {**network_settings("jittered"), "held_out": 10_000}
    assert network_settings("ensemble-jittered")["jitter"] == 2 and network_settings("only-7-8")["digits"] == (7, 8)
