"""Archives of lattices, the store, and sequence training on it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toy_lattices import all_paths, random_lattice
from training import config, inline_jobs

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, write_json
from asr_kd.corpora.cuts import load_cuts, load_senones
from asr_kd.lattices import store as lattice_store
from asr_kd.lattices.__main__ import main as lattices_stage
from asr_kd.lattices.archive import read_lattices
from asr_kd.lattices.batch import LatticeBatch
from asr_kd.lattices.config import Config
from asr_kd.lattices.paths import log_sum
from asr_kd.lattices.store import LatticeStore
from asr_kd.train import __main__ as train
from asr_kd.train.loop import Trainer

SENONES = 6


def write_archive(path: Path, lattices: dict[str, list[bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wb") as file:
        for name, lines in lattices.items():
            file.write(b"".join([f"{name}\n".encode(), *lines, b"\n"]))


def competitors(labels: np.ndarray, random: np.random.Generator) -> list[bytes]:
    """A lattice of the alignment and, for every stretch of ten frames, another senone, at random costs."""
    lines, states = [], [0]
    for frame, label in enumerate(labels.tolist()):
        if frame % 10 == 0:
            other = int(random.integers(SENONES))
        after = [2 * frame + 1, 2 * frame + 2]
        for source in states if frame % 10 else [*states, *states[1:]]:
            for place, pdf in enumerate((label, other)):
                stays = source == 0 or (source - 1) % 2 == place or frame % 10 == 0
                if stays:
                    lines.append(f"{source} {after[place]} {pdf + 1} 0 {random.uniform(0, 0.1):.4f},{pdf}\n".encode())
        states = after
    end = 2 * len(labels) + 1
    return [*lines, *(f"{state} {end} 0 0 0,0\n".encode() for state in states), f"{end} 0,0\n".encode()]


@pytest.fixture(scope="module")
def decoded(prepared, tmp_path_factory) -> Path:
    """A decoding with lattices of train and dev."""
    out, random = tmp_path_factory.mktemp("decoded"), np.random.default_rng(0)
    for split in ("train", "dev"):
        lattices = {cut.id: competitors(load_senones(cut), random) for cut in load_cuts(prepared.senones, split)}
        write_archive(out / f"lattices_{split}.gz", lattices)
    options = {"acoustic_scale": 0.1, "insertion_penalty": 0.0}
    write_json(out / "decode.json", {"options": options, "senones": "resonances"})
    return out


@pytest.fixture(scope="module")
def lattices(decoded, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("store") / "lattices"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lattice_store, "SHARD_ARCS", 3000)  # several shards
        lattices_stage(Config(decoded, out))
    return out


@pytest.fixture(scope="module")
def start(prepared, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("models") / "start"
    with inline_jobs():
        train.main(config(prepared, out, epochs=1, batch_norm=True))
    return out / "seed-0"


def sequence(prepared, store: Path | None, start: Path, out: Path, **changes):
    settings = {"lattices": store, "start_from": start, "learning_rate": 1e-3, "epochs": 2, "batch_frames": 1500}
    return config(prepared, out, **{"batch_size": 512, "dropout": 0.0, "batch_norm": True, **settings, **changes})


def test_paths_of_an_archive_are_those_of_its_text(tmp_path):
    """Words are dropped and arcs between the same states merged, which leaves the sum over all paths as it is; arcs of
    several words and final states of either kind are read."""
    random = np.random.default_rng(1)
    lines = random_lattice(random, 4)
    rows = ["0 9 0 7 1.5,0", "9 8 0 2 0,0", "8 1 2 3 0.25,-1", "0\t2\t1\t0\t0.5,2", "1 3 4 0", "2 3 1 5 1,1", "3 0.5,0"]
    several = [f"{row}\n".encode() for row in rows]
    path = tmp_path / "lattices_dev.gz"
    write_archive(path, {"one": lines, "several words": several})
    penalty = 0.25
    for (_, arcs), text in zip(read_lattices(path, penalty), (lines, several), strict=True):
        scores = [
            sum(graph + 0.1 * acoustic - penalty * (word > 0) for _, word, graph, acoustic in path)
            for path in all_paths(text)
        ]
        batch = LatticeBatch.of([arcs])
        found = log_sum(batch.graph.double() + 0.1 * batch.acoustic.double(), batch)
        end = -0.5 if text is several else 0.0
        assert found.item() == pytest.approx(torch.tensor(scores).double().logsumexp(0).item() + end, abs=1e-5)


def test_dead_ends_are_left_out_however_many_there_are(tmp_path):
    path = [b"0 1 1 0 1,2\n", b"1 70009 2 0 3,4\n", b"70009 0,0\n"]
    dead = [b"0 %d 3 0 0,0\n" % state for state in range(2, 70_000)]
    write_archive(tmp_path / "lattices_dev.gz", {"with": path[:1] + dead + path[1:], "without": path})
    (_, arcs), (_, expected) = read_lattices(tmp_path / "lattices_dev.gz")
    np.testing.assert_array_equal(arcs, expected)


@pytest.mark.parametrize(
    "lines",
    [
        [b"0 1 1 0 0,0\n", b"1 2 x 0 0,0\n", b"2 0,0\n"],
        [b"0 1 1 0 0,0\n", b"1 2 1 0 0,0\n", b"0 2 1 0 0,0\n", b"2 0,0\n"],
        [b"0 1 1 0 0,0\n", b"1 0 1 0 0,0\n", b"1 0,0\n"],
        [b"0 1 0 4 0,0\n", b"0 1 1 0 0,0\n", b"1 2 1 0 0,0\n", b"2 0,0\n"],
        [b"0 1 1 0 0,0\n"],
        [b"0 1 1 0 nan,0\n", b"1 0,0\n"],
    ],
    ids=["no number", "two lengths", "circle", "a word beside a frame", "no end", "nan"],
)
def test_damaged_lattices_are_refused(tmp_path, lines):
    write_archive(tmp_path / "lattices_dev.gz", {"u": lines})
    with pytest.raises(UserError, match=r"lattices_dev.gz is damaged \(.*decode that split again"):
        list(read_lattices(tmp_path / "lattices_dev.gz"))


def test_cut_off_and_missing_archives_are_refused(tmp_path):
    path = tmp_path / "lattices_dev.gz"
    with pytest.raises(UserError, match="is missing: decode that split with --lattices"):
        list(read_lattices(path))
    write_archive(path, {"u": random_lattice(np.random.default_rng(0), 50)})
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"is damaged .*decode that split again"):
        list(read_lattices(path))


def test_store_has_the_lattices_of_the_archive(decoded, lattices):
    assert len(list((lattices / "train").glob("*.npy"))) > 1
    store = LatticeStore(lattices, "train")
    for name, arcs in read_lattices(decoded / "lattices_train.gz"):
        assert (store.read(name) == arcs).all()
        assert not store.fault(name, int(arcs["frame"][-1]))
    assert store.scale == 0.1
    assert store.fault("nobody", 3) == "it has no lattice"
    assert "frames, not 1" in store.fault(name, 1)


@pytest.mark.parametrize("criterion", ["smbr", "mmi", "kl"])
def test_sequence_training_improves_its_criterion(prepared, lattices, start, tmp_path, criterion):
    trainer = Trainer(sequence(prepared, lattices, start, tmp_path / criterion, criterion=criterion), 0)
    before = trainer.evaluate()["dev_criterion"]
    statistics = {name: value.clone() for name, value in trainer.model.state_dict().items() if "running" in name}
    assert statistics
    trainer.train_epoch()
    trainer.train_epoch()
    assert trainer.log[-1]["dev_criterion"] > before
    assert trainer.log[-1]["train_criterion"] > trainer.log[0]["train_criterion"]
    assert all((value == trainer.model.state_dict()[name]).all() for name, value in statistics.items())
    assert (trainer.out / "model.safetensors").is_file()


def test_killed_sequence_training_resumes_to_the_same_weights(prepared, lattices, start, tmp_path):
    whole = Trainer(sequence(prepared, lattices, start, tmp_path / "whole"), 0)
    Trainer(sequence(prepared, lattices, start, tmp_path / "parts"), 0).train_epoch()
    resumed = Trainer(sequence(prepared, lattices, start, tmp_path / "parts"), 0)
    for trainer in (whole, resumed):
        while trainer.epoch < 2:
            trainer.train_epoch()
    expected, found = (load_file(trainer.out / "last.safetensors") for trainer in (whole, resumed))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_networks_of_chunks_and_soft_targets_take_part(prepared, lattices, store, tmp_path, inline):
    gru = {"network": "gru", "network_args": ("layers=1", "width=16")}
    gru |= {"preset": "medium", "dropout": 0.2, "batch_norm": False}
    train.main(config(prepared, tmp_path / "gru", batch_size=512, epochs=1, **gru))
    settings = sequence(
        prepared, lattices, tmp_path / "gru" / "seed-0", tmp_path / "student", soft_targets=store, temperature=2.0,
        epochs=1, smoothing=0.5, **gru,
    )  # fmt: skip
    train.main(settings)
    entry = read_json_lines(tmp_path / "student" / "seed-0" / "log.jsonl")[0]
    assert entry["train_loss"] == pytest.approx(
        0.5 * (0.5 * entry["train_soft"] + 0.5 * entry["train_hard"]) - 0.5 * entry["train_criterion"] / 0.1, rel=1e-3
    )


def read_json_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_utterances_without_a_lattice_are_left_out_and_listed(prepared, lattices, start, tmp_path, capsys):
    few = tmp_path / "few"
    few.mkdir()
    for path in lattices.rglob("*"):
        if path.is_file() and path.name != "stage.json":
            (few / path.relative_to(lattices)).parent.mkdir(exist_ok=True)
            (few / path.relative_to(lattices)).write_bytes(path.read_bytes())
    index = read_json(few / "train" / "index.json")
    gone = sorted(index)[0]
    write_json(few / "train" / "index.json", {name: place for name, place in index.items() if name != gone})
    trainer = Trainer(sequence(prepared, few, start, tmp_path / "out"), 0)
    assert len(trainer.train_loader.source.sizes) == len(index) - 1
    assert "1 utterances of train have no lattice" in capsys.readouterr().out
    assert f"{gone}\tit has no lattice" in (trainer.out / "skipped_train.tsv").read_text()


def test_what_does_not_fit_is_refused(prepared, lattices, start, tmp_path, inline):
    for changes, sentence in (
        ({"start_from": None}, "--lattices continues the training of a network"),
        ({"lattices": None}, "--batch-frames is for sequence training"),
        ({"spec_augment": True}, "--spec-augment does not work with --lattices"),
        ({"batch_size": 64}, "--batch-size has no effect on dnn, which is trained on whole utterances"),
        ({"lattices": prepared.features}, "is no store of lattices: make one"),
    ):
        with pytest.raises(UserError, match=sentence):
            train.main(sequence(prepared, lattices, start, tmp_path / "out", **changes))
    write_json(tmp_path / "lattices.json", {"acoustic_scale": 0.1, "senones": "others"})
    with pytest.raises(UserError, match="different senones"):
        train.main(sequence(prepared, lattices, start, tmp_path / "out", lattices=tmp_path))
    write_json(tmp_path / "lattices.json", {"acoustic_scale": 0.1, "senones": "resonances"})
    with pytest.raises(UserError, match="has no lattices of train: decode train"):
        train.main(sequence(prepared, lattices, start, tmp_path / "out2", lattices=tmp_path))


def test_decodings_without_lattices_are_refused(tmp_path):
    decoded = tmp_path / "decoded"
    decoded.mkdir()
    write_json(decoded / "decode.json", {"options": {}})
    with pytest.raises(UserError, match=r"decode\.json is damaged or of another version"):
        lattices_stage(Config(decoded, tmp_path / "a"))
    write_json(decoded / "decode.json", {"options": {"acoustic_scale": 0.1, "insertion_penalty": 0}, "senones": ""})
    with pytest.raises(UserError, match=r"lattices_train\.gz is missing"):
        lattices_stage(Config(decoded, tmp_path / "b"))
    write_archive(decoded / "lattices_train.gz", {})
    with pytest.raises(UserError, match="has no lattices"):
        lattices_stage(Config(decoded, tmp_path / "c"))
