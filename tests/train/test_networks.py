"""Every kind of network: it learns, resumes, gives the same logits in parts, and takes every role in distillation."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet
from safetensors.torch import load_file
from torch import nn
from training import config, store_config

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, stage_figures
from asr_kd.features.normalise import QUIET, Normaliser
from asr_kd.models import posteriors as scoring
from asr_kd.models.network import NETWORKS, Chunks, Network, context_of, is_window_classifier, outputs, segment_of
from asr_kd.models.posteriors import ensemble_logits
from asr_kd.models.tdnn import TDNNF
from asr_kd.score.accuracy import __main__ as accuracy
from asr_kd.soft_targets import __main__ as soft_targets_stage
from asr_kd.train import __main__ as train
from asr_kd.train.augment import SpecAugment
from asr_kd.train.chunks import ChunkLoader
from asr_kd.train.config import network_args
from asr_kd.train.loop import Trainer
from asr_kd.train.pools import PoolReader
from asr_kd.train.sources import Manifests

STRANGER = "stranger:Bidirectional"
SMALL = {
    "dnn": {"preset": "tiny", "batch_size": 128},
    "tdnn": {"network_args": ("width=48", "dropout=0.1")},
    "tdnnf": {"network_args": ("width=48", "bottleneck=16", "strides=[1, 3]")},
    "gru": {"network_args": ("layers=1", "width=48"), "delay": 3},
    "conformer": {"network_args": ("layers=1", "width=32", "segment=32", "left=32", "right=16", "kernel=7")},
    "emformer": {"network_args": ("layers=2", "width=32", "segment=16", "context=16", "right=8")},
    STRANGER: {},
}
RATES = {"dnn": 2e-3, "tdnn": 1e-2, "tdnnf": 1e-2, "gru": 1e-2, "conformer": 3e-3, "emformer": 3e-3, STRANGER: 1e-2}


def settings(prepared, out: Path, name: str, **changes):
    chunks = {} if name == "dnn" else {"chunk": 64, "batch_chunks": 8}
    small = {"preset": "medium", "batch_size": 512} | chunks | SMALL[name]
    return config(prepared, out, network=name, learning_rate=RATES[name], **small | changes)


@pytest.fixture(scope="module")
def ten(prepared, tmp_path_factory) -> Path:
    """A manifest of ten utterances."""
    path = tmp_path_factory.mktemp("ten") / "cuts.jsonl.gz"
    CutSet.from_file(prepared.senones / "cuts_train.jsonl.gz").subset(first=10).to_file(path)
    return path


@pytest.mark.parametrize("name", SMALL)
def test_it_overfits_ten_utterances_and_resumes_bit_for_bit(prepared, ten, tmp_path, name):
    epochs = 8
    whole = Trainer(settings(prepared, tmp_path / "whole", name, train_cuts=(ten,), epochs=epochs), 0)
    Trainer(settings(prepared, tmp_path / "parts", name, train_cuts=(ten,), epochs=epochs), 0).train_epoch()
    resumed = Trainer(settings(prepared, tmp_path / "parts", name, train_cuts=(ten,), epochs=epochs), 0)
    assert resumed.epoch == 1
    for trainer in (whole, resumed):
        while trainer.epoch < epochs:
            trainer.train_epoch()
    assert whole.log[-1]["train_accuracy"] > 90, whole.log
    assert whole.log[-1]["train_loss"] < 0.5 * whole.log[0]["train_loss"]
    expected, found = (load_file(trainer.out / "last.safetensors") for trainer in (whole, resumed))
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    described = read_json(whole.out / "model.json")["network"]
    assert described["name"] == NETWORKS.get(name, name) and described["feature_dim"] == 40


@pytest.mark.parametrize("name", SMALL)
def test_parts_have_the_logits_of_the_whole(prepared, monkeypatch, name):
    torch.manual_seed(0)
    args = network_args(SMALL[name].get("network_args", ()))
    model = Network(NETWORKS.get(name, name), 40, 7, args, SMALL[name].get("delay", 0)).build().eval()
    for parameter in model.parameters():
        if parameter.dim() == 2 and len(parameter) == 7:
            nn.init.normal_(parameter)
    features = np.random.default_rng(0).normal(size=(2500, 40)).astype(np.float32)
    whole = ensemble_logits([model], features)[0]
    monkeypatch.setattr(scoring, "PART_FRAMES", 300)
    assert whole.shape == (2500, 7) and whole.std() > 0.01
    # A thousand frames of context stand for all where there is no bound.
    torch.testing.assert_close(ensemble_logits([model], features)[0], whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        ensemble_logits([model], features, slice(777, 1555))[0], whole[777:1555], atol=1e-5, rtol=0
    )
    assert ensemble_logits([model], features[:0])[0].shape == (0, 7)
    if model.right is not None:  # what is further away than its context changes nothing
        changed = features.copy()
        changed[1600 + model.right + getattr(model, "segment", 1) :] = 3
        torch.testing.assert_close(ensemble_logits([model], changed)[0][:1600], whole[:1600], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "dnn"])
def test_chunks_of_training_have_the_logits_of_scoring(prepared, name):
    """Each frame is in one chunk, with the context that it has in scoring."""
    torch.manual_seed(0)
    trainer_settings = settings(prepared, Path("unused"), name)
    args = network_args(trainer_settings.network_args)
    model = Network(NETWORKS.get(name, name), 40, 6, args, trainer_settings.delay).build().eval()
    normaliser = Normaliser.load(prepared.features)
    pools = PoolReader(Manifests([prepared.senones / "cuts_train.jsonl.gz"]), normaliser, 0, 0)
    loader = ChunkLoader(pools, context_of(model, 1024), segment_of(model), 64, 5)
    batches = list(loader.epoch(3))
    assert sum(len(batch.labels) for batch in batches) == pools.frames
    cuts = CutSet.from_file(prepared.senones / "cuts_train.jsonl.gz")
    expected = torch.cat([ensemble_logits([model], normaliser(cut))[0] for cut in cuts])
    with torch.no_grad():
        found = torch.cat([outputs(model, batch.inputs, batch.chunks) for batch in batches])
    # Frames come in another order: compare them sorted by a projection.
    direction = torch.randn(6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close((found @ direction).sort()[0], (expected @ direction).sort()[0], atol=1e-4, rtol=0)
    assert [len(b.labels) for b in batches] != [len(b.labels) for b in loader.epoch(4)] or len(batches) == 1


@pytest.mark.parametrize(("teacher", "student"), [("conformer", "dnn"), ("dnn", "gru"), (STRANGER, "tdnnf")])
def test_any_network_teaches_any_other(prepared, tmp_path, inline, teacher, student):
    train.main(settings(prepared, tmp_path / "teacher", teacher, epochs=3, seeds=(0, 1)))
    store = store_config(prepared, tmp_path / "teacher", tmp_path / "store", temperatures=(2.0,))
    soft_targets_stage.main(store)
    train.main(settings(prepared, tmp_path / "student", student, epochs=3, soft_targets=tmp_path / "store"))
    folder = tmp_path / "student" / "seed-0"
    assert stage_figures(folder)["dev_accuracy"] > 60
    out = tmp_path / "accuracy"
    accuracy.main(accuracy.Config([f"{n}={tmp_path / n / 'seed-0'}" for n in ("teacher", "student")],
                                  prepared.features, prepared.senones, out, jobs=1))  # fmt: skip
    measured = read_json(out / "student" / "accuracy.json")["dev"]
    assert measured


def test_teachers_run_beside_a_student_that_is_trained_on_chunks(prepared, teachers, tmp_path):
    online = settings(prepared, tmp_path / "online", "tdnn", teachers=(teachers / "seed-0",), temperature=2.0)
    trainer = Trainer(online, 0)
    trainer.train_epoch()
    trainer.train_epoch()
    assert trainer.log[1]["train_kl"] < trainer.log[0]["train_kl"]


def test_a_chunk_teacher_cannot_run_beside_a_student_of_windows(prepared, tmp_path, inline):
    train.main(settings(prepared, tmp_path / "teacher", "tdnn", epochs=1))
    online = settings(prepared, tmp_path / "s", "dnn", teachers=(tmp_path / "teacher" / "seed-0",))
    with pytest.raises(UserError, match="needs more than the student's windows: make a store"):
        Trainer(online, 0)


def test_a_delay_moves_the_outputs():
    torch.manual_seed(0)
    plain = Network(NETWORKS["gru"], 4, 3).build().eval()
    later = dataclasses.replace(plain.network, delay=5).build().eval()
    later.inner.load_state_dict(plain.state_dict())
    features = torch.randn(1, 30, 4)
    padded = torch.cat([features, torch.full((1, 5, 4), QUIET)], 1)
    expected = plain(padded, torch.tensor([35]))[0][:, 5:]
    torch.testing.assert_close(later(features, torch.tensor([30]))[0], expected)
    assert (later.left, later.right) == (None, 5)


def test_first_factors_become_semi_orthogonal():
    torch.manual_seed(0)
    model = TDNNF(4, 3, width=32, bottleneck=8)
    weight = model.hidden[0].linear.weight
    nn.init.normal_(weight)
    for _ in range(200):
        model.constrain()
    product = weight @ weight.T
    scale = product.trace() / 8
    torch.testing.assert_close(product, scale * torch.eye(8), atol=1e-4 * scale.item(), rtol=0)


def test_spec_augment_masks_copies(prepared):
    pools = PoolReader(Manifests([prepared.senones / "cuts_train.jsonl.gz"]), Normaliser.load(prepared.features), 3, 2)
    (pool,) = pools.epoch(np.random.default_rng(0))
    before = pool.rows.clone()
    first, again, other = (SpecAugment(40)(pool, np.random.default_rng(seed)).rows for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other) and torch.equal(pool.rows, before)
    changed = (first != before).any(1).float().mean()
    assert 0.5 < changed < 1
    outside = np.setdiff1d(np.arange(len(before)), pool.starts + 3)
    assert torch.equal(first[outside], before[outside])


def test_spec_augment_trains_and_resumes(prepared, tmp_path):
    changes = {"spec_augment": True, "epochs": 2}
    whole = Trainer(settings(prepared, tmp_path / "whole", "dnn", **changes), 0)
    whole.train_epoch(), whole.train_epoch()
    Trainer(settings(prepared, tmp_path / "parts", "dnn", **changes), 0).train_epoch()
    parts = Trainer(settings(prepared, tmp_path / "parts", "dnn", **changes), 0)
    parts.train_epoch()
    assert parts.log[1]["train_loss"] == whole.log[1]["train_loss"]


def test_repeated_outputs_stand_for_the_frames_of_a_network_with_subsampling():
    class Half(nn.Module):
        left, right, subsampling = 0, 1, 2

        def forward(self, features, lengths):
            return features[:, ::2, :3], (lengths + 1) // 2

    features = torch.arange(28.0).view(1, 7, 4)
    found = outputs(Half(), features, Chunks(torch.tensor([7]), torch.arange(7)))
    torch.testing.assert_close(found, features[0, [0, 0, 2, 2, 4, 4, 6], :3])


class NoContext(nn.Module):
    def __init__(self, feature_dim: int, num_senones: int) -> None:
        super().__init__()


class Refuses(nn.Module):
    def __init__(self, feature_dim: int, num_senones: int, width: int = 3) -> None:
        raise ValueError("width must be even")


@pytest.mark.parametrize(
    ("name", "args", "sentence"),
    [
        ("tdnnn", {}, "there is no network 'tdnnn'"),
        ("no.such.module:Net", {}, "there is no network 'no.such.module:Net'"),
        ("stranger:Nothing", {}, "there is no network 'stranger:Nothing'"),
        ("json:loads", {}, "no subclass of torch.nn.Module"),
        ("test_networks:NoContext", {}, "has no attribute left"),
        ("test_networks:Refuses", {}, "width must be even"),
        ("tdnn", {"depth": 3}, "correct --network-args"),
        ("tdnn", {"offsets": [[2, 1]]}, "offsets of a layer ascend"),
        ("emformer", {"context": 20}, "no multiple of a segment"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_built_are_named(name, args, sentence):
    with pytest.raises(UserError, match=sentence):
        Network(NETWORKS.get(name, name), 40, 6, args).build()


def test_batches_have_as_many_chunks_as_are_asked_for(prepared):
    normaliser = Normaliser.load(prepared.features)
    pools = PoolReader(Manifests([prepared.senones / "cuts_train.jsonl.gz"]), normaliser, 0, 0)
    for chunks in (1, 2, 6):
        sizes = [len(batch.labels) for batch in ChunkLoader(pools, (8, 8), chunk=60, chunks=chunks).epoch(1)]
        assert sum(sizes) == pools.frames and abs(np.mean(sizes) / (60 * chunks) - 1) < 0.4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"network": "tdnn", "preset": "tiny"}, "--preset is for --network dnn"),
        ({"network": "gru", "tensor_parallel": True}, "--tensor-parallel is for --network dnn"),
        ({"network": "dnn", "network_args": ("width=3",)}, "flags of its own"),
        ({"network": "dnn", "delay": 3}, "--delay is for networks that are trained on chunks"),
        ({"network": "dnn", "chunk": 100}, "--chunk has no effect on dnn, which is trained on shuffled frames"),
        ({"network": "gru", "batch_size": 64}, "--batch-size has no effect on gru, which is trained on chunks"),
        ({"network": "gru", "network_args": ("width",)}, "write name=value"),
        ({"network": "gru", "network_args": ("width=[1,",)}, "is no number, list or word"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_are_refused(prepared, tmp_path, inline, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        train.main(config(prepared, tmp_path, **{"preset": "medium", "batch_size": 512} | changes))


def test_only_networks_with_windows_are_window_classifiers():
    built = {name: is_window_classifier(Network(cls, 40, 6).build()) for name, cls in NETWORKS.items()}
    assert built == {name: name == "dnn" for name in NETWORKS}
