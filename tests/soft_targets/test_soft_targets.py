"""The store of soft targets: what it keeps, how it is read, and which errors it reports."""

import dataclasses
import itertools
import os
import resource
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet
from training import config, store_config

from asr_kd.common.errors import UserError
from asr_kd.common.storage import stage_figures
from asr_kd.features.__main__ import main as features_stage
from asr_kd.features.config import Config as FeaturesConfig
from asr_kd.features.normalise import Normaliser
from asr_kd.models.checkpoints import load_model, load_tensors, save_tensors
from asr_kd.models.posteriors import posteriors
from asr_kd.soft_targets import __main__ as stage
from asr_kd.soft_targets import shards
from asr_kd.soft_targets import store as store_module
from asr_kd.soft_targets.compute import ShardJob, make_shard
from asr_kd.soft_targets.inspect import __main__ as inspect_stage
from asr_kd.soft_targets.inspect.statistics import inspect
from asr_kd.soft_targets.rows import COLUMNS, PROBABILITY, ZERO_CODE, TargetRows
from asr_kd.soft_targets.store import SoftTargets
from asr_kd.soft_targets.writer import Writer
from asr_kd.train import __main__ as train


def cuts_of(prepared) -> CutSet:
    return CutSet.from_file(prepared.senones / "cuts_train.jsonl.gz").to_eager()


def shard_job(prepared, teachers, store, cuts, **changes) -> ShardJob:
    form = {"num_classes": 6, "tail": "even", "floor": 0.0, "top": 4} | changes
    return ShardJob(store, 0, cuts, (teachers / "seed-0",), (), prepared.features, form)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 1000),
    frames=st.integers(1, 12),
    classes=st.integers(1, 40),
    top=st.integers(1, 255),
    floor=st.sampled_from([0.0, 1e-3, 0.05, 0.9]),
    scale=st.sampled_from([0.1, 3.0, 1e3]),
    tail=st.sampled_from(["even", "bucket", "none"]),
)
def test_packing_keeps_the_largest(seed, frames, classes, top, floor, scale, tail):
    dense = (torch.randn(frames, classes, generator=torch.Generator().manual_seed(seed)) * scale).softmax(1)
    rows = TargetRows.pack(dense, top, floor, tail)
    assert len(rows) == frames
    assert rows.nbytes == 2 * frames + 3 * int(rows.counts.sum())
    index = np.random.default_rng(seed).permutation(frames)
    targets = rows.batch(index)
    kept = targets.probabilities
    for row, place in enumerate(index):
        expected = [p for p in sorted(dense[place].tolist(), reverse=True)[:top] if p >= floor] or [dense[place].max()]
        found = kept[row][kept[row] > 0]
        assert rows.counts[place] == len(expected)
        torch.testing.assert_close(found, torch.tensor(expected)[: len(found)] * (found.sum() / sum(expected)),
                                   rtol=0.06, atol=1e-5)  # fmt: skip
        torch.testing.assert_close(
            dense[place][targets.classes[row][: len(found)]], torch.tensor(expected)[: len(found)]
        )
    assert (kept.sum(1) < 1 + 1e-5).all()
    if tail == "none":
        torch.testing.assert_close(kept.sum(1), torch.ones(frames))


def test_ranges_and_joins_are_consistent():
    dense = torch.randn(20, 9).mul(3).softmax(1)
    rows = TargetRows.pack(dense, 5, 0.02)
    parts = [rows.range(a, b) for a, b in ((0, 7), (7, 7), (7, 19), (19, 20))]
    again = TargetRows.join(parts)
    for name in ("counts", "tails", "classes", "codes"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))
    index = np.array([18, 3, 3])
    torch.testing.assert_close(again.batch(index).dense(9), rows.batch(index).dense(9))
    torch.testing.assert_close(parts[2].batch(np.array([11])).dense(9), rows.batch(np.array([18])).dense(9))


@pytest.mark.parametrize(
    ("sample", "parameter", "most"), [(TargetRows.importance_sample, 10, 10), (TargetRows.threshold_sample, 0.1, 11)]
)
def test_samples_are_unbiased(sample, parameter, most):
    dense = torch.randn(3, 20).mul(2).softmax(1).repeat_interleave(3000, 0)
    rows = sample(dense, parameter, torch.Generator().manual_seed(0))
    assert rows.counts.max() <= most
    found = rows.batch(np.arange(9000)).dense(20)
    torch.testing.assert_close(found.sum(1), torch.ones(9000))
    means = found.view(3, 3000, 20).mean(1)
    torch.testing.assert_close(means, dense[::3000], atol=0.015, rtol=0.03)


def test_threshold_sampling_keeps_probable_classes_and_the_mass():
    dense = torch.randn(200, 50).mul(2).softmax(1)
    rows = TargetRows.threshold_sample(dense, 0.02, torch.Generator().manual_seed(0))
    values = PROBABILITY[rows.codes]
    mass = np.array([values[start : start + n].sum() for start, n in zip(rows._starts, rows.counts, strict=True)])
    assert np.abs(mass - 1).max() < 0.02 + 0.02  # one class more or less, and the rounding of the codes
    found = rows.batch(np.arange(200)).dense(50)
    probable = dense >= 0.02
    assert ((found / dense)[probable] - 1).abs().max() < 0.08
    assert (found[~probable] < 0.022).all()


@pytest.mark.parametrize("tail", ["sampled", "drawn", "bucket", "prior", "even"])
def test_every_form_of_store_trains(prepared, teachers, tmp_path, inline, tail):
    stage.main(store_config(prepared, teachers, tmp_path / "store", temperatures=(1.0,), top=2, tail=tail, draws=5))
    train.main(config(prepared, tmp_path / "student", soft_targets=tmp_path / "store", epochs=1))
    assert stage_figures(tmp_path / "student" / "seed-0")["dev_accuracy"] > 40


def test_codes_cost_little():
    assert PROBABILITY[ZERO_CODE] == 0
    dense = torch.randn(500, 40).mul(3).softmax(1).double()
    found = TargetRows.pack(dense, 40, 0.0).batch(np.arange(500)).dense(40).double()
    assert (dense * (dense / found.clamp(min=1e-30)).log()).sum(1).mean() < 2e-4


def spread(compact):
    """Return dense probabilities, with the mass of the tail spread evenly."""
    return dataclasses.replace(compact, tail="even").dense(6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_store_holds_the_ensemble_average(prepared, teachers, store, temperature):
    targets = SoftTargets(store, prepared.features, temperature)
    models = [load_model(teachers / f"seed-{seed}") for seed in (0, 1)]
    assert sorted(targets) == sorted(cut.id for cut in cuts_of(prepared))
    for cut in list(cuts_of(prepared))[:3]:
        expected = torch.from_numpy(posteriors(models, Normaliser.load(prepared.features)(cut), temperature))
        frames = len(expected)
        rows = targets.read(cut.id, frames)
        dense = spread(targets.batch(rows, np.arange(frames), expected))
        torch.testing.assert_close(dense.sum(1), torch.ones(frames))
        assert (dense - expected).abs().max() < 0.03
        part = targets.read(cut.id, frames, 10, 15)
        torch.testing.assert_close(spread(part.batch(np.arange(5))), dense[10:15])
    figures = stage_figures(store)["temperatures"][f"{temperature:g}"]
    assert 0.9 < figures["mass_kept"] <= 1
    assert 5 <= figures["bytes_per_frame"] <= 2 + 3 * 4


def test_temperature_must_be_one_of_the_store(prepared, store):
    with pytest.raises(UserError, match="temperature 1, 2: choose one"):
        SoftTargets(store, prepared.features)
    with pytest.raises(UserError, match="choose one"):
        SoftTargets(store, prepared.features, 3.0)


def test_an_interrupted_store_is_resumed(prepared, teachers, store, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "CUTS_PER_SHARD", 5)
    settings = store_config(prepared, teachers, tmp_path / "store")
    made = []
    monkeypatch.setattr(
        stage, "run_all", lambda _, __, jobs, *___: ((0, make_shard(job)) for job in itertools.islice(jobs, 2))
    )
    with pytest.raises(UserError, match="missing"):
        stage.main(settings)
    monkeypatch.setattr(
        stage,
        "run_all",
        lambda _, __, jobs, *___: ((0, made.append(job.number) or make_shard(job)) for job in jobs),
    )
    stage.main(settings)
    assert made == list(range(2, -(-len(cuts_of(prepared)) // 5)))
    whole, parts = (SoftTargets(folder, prepared.features, 2.0) for folder in (store, tmp_path / "store"))
    for cut_id in whole:
        np.testing.assert_array_equal(whole.read(cut_id).codes, parts.read(cut_id).codes)


def test_a_store_is_bound_to_the_features_of_the_student(prepared, teachers, tmp_path, inline):
    features_stage(FeaturesConfig(prepared.data, tmp_path / "features", num_filters=20))
    settings = {"temperatures": (2.0,), "student_features": tmp_path / "features"}
    stage.main(store_config(prepared, teachers, tmp_path / "store", **settings))
    store = SoftTargets(tmp_path / "store", tmp_path / "features")
    for cut in CutSet.from_file(tmp_path / "features" / "cuts_train.jsonl.gz"):
        assert len(store.read(cut.id)) == cut.num_frames
    with pytest.raises(UserError, match="other features"):
        SoftTargets(tmp_path / "store", prepared.features)


def test_store_of_other_teachers_is_refused(prepared, teachers, tmp_path, inline):
    shutil.copytree(teachers, tmp_path / "teachers")
    stage.main(store_config(prepared, tmp_path / "teachers", tmp_path / "store", temperatures=(2.0,)))
    SoftTargets(tmp_path / "store", prepared.features)
    train.main(config(prepared, tmp_path / "teachers", seeds=(0,), epochs=1))
    with pytest.raises(UserError, match=r"other teachers \(seed-0 has changed"):
        SoftTargets(tmp_path / "store", prepared.features)


def test_few_shards_are_open_at_a_time(prepared, teachers, store, tmp_path, monkeypatch, inline):
    """A corpus of 1,000 hours has more shards than a process may have open files."""
    monkeypatch.setattr(stage, "CUTS_PER_SHARD", 2)
    stage.main(store_config(prepared, teachers, tmp_path / "store"))
    monkeypatch.setattr(store_module, "MAX_OPEN_SHARDS", 3)
    targets = SoftTargets(tmp_path / "store", prepared.features, 1.0)
    ids, whole = list(targets), SoftTargets(store, prepared.features, 1.0)
    assert len(ids) > 10 and len(whole.read(ids[0]))
    before = len(os.listdir("/proc/self/fd"))
    for cut_id in (*ids, *ids):
        np.testing.assert_array_equal(targets.read(cut_id).codes, whole.read(cut_id).codes)
        assert len(os.listdir("/proc/self/fd")) <= before + 3 * len(COLUMNS)


def test_two_cuts_with_one_id_are_refused(prepared, teachers, store, tmp_path, inline):
    for turns, number in ((2, 1), (1, 2)):
        cuts = list(cuts_of(prepared))[:2]
        job = shard_job(prepared, teachers, tmp_path / str(number), cuts * turns)
        with pytest.raises(UserError, match=f"two utterances .* have the id {cuts[0].id}"):
            for one in range(number):
                make_shard(dataclasses.replace(job, number=one))
            Writer(job.store, **job.settings).finish(prepared.features, job.models)


def test_other_cuts_are_refused(prepared, store):
    targets = SoftTargets(store, prepared.features, 1.0)
    with pytest.raises(UserError, match="no soft targets for nobody"):
        targets.read("nobody", 10)
    with pytest.raises(UserError, match="frames for"):
        targets.read(next(iter(targets)), 3)


def test_frames_that_a_cut_does_not_have_are_never_a_neighbours(prepared, store):
    targets = SoftTargets(store, prepared.features, 1.0)
    cut_id = list(targets)[1]
    frames = len(targets.read(cut_id))
    assert len(targets.read(cut_id, start=2, stop=frames + 9)) == frames - 2
    for start, stop in ((-2, None), (0, -1), (frames + 1, None), (5, 3)):
        with pytest.raises(ValueError, match=f"are not frames of {cut_id}, which has {frames}"):
            targets.read(cut_id, start=start, stop=stop)


@pytest.mark.parametrize("name", [shards.KEYS, shards.PLACES, shards.SKIPPED])
def test_a_flipped_bit_in_the_index_is_named(prepared, teachers, tmp_path, inline, name):
    stage.main(store_config(prepared, teachers, tmp_path / "store"))
    content = bytearray((tmp_path / "store" / name).read_bytes())
    content[-12:] = bytes(reversed(content[-12:])) or b"x\n"
    (tmp_path / "store" / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is missing or damaged .*run asr_kd.soft_targets again"):
        SoftTargets(tmp_path / "store", prepared.features, 1.0)


@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_a_damaged_shard_is_named_and_the_others_read(prepared, teachers, tmp_path, monkeypatch, inline, damage):
    monkeypatch.setattr(stage, "CUTS_PER_SHARD", 5)
    stage.main(store_config(prepared, teachers, tmp_path / "store"))
    array = tmp_path / "store" / "shard-00001" / "t2.codes.npy"
    content = bytearray(array.read_bytes())
    content[-20] ^= 1
    array.write_bytes(content if damage == "flipped" else content[:-9])
    if damage == "gone":
        array.unlink()
    targets = SoftTargets(tmp_path / "store", prepared.features, 2.0)
    ids = list(targets)
    for cut_id in (*ids[:5], *ids[10:]):
        targets.read(cut_id)
    with pytest.raises(UserError, match=r"t2.codes.npy.*(damaged|missing).*shard-00001 and run"):
        targets.read(ids[5])
    assert len(SoftTargets(tmp_path / "store", prepared.features, 1.0).read(ids[5]))  # its other temperature is whole


def test_a_full_disk_leaves_no_partial_file(prepared, teachers, tmp_path):
    job = shard_job(prepared, teachers, tmp_path / "store", list(cuts_of(prepared))[:2])
    Writer(job.store, **job.settings)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            make_shard(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((tmp_path / "store").rglob("*.npy")) and not list((tmp_path / "store").rglob("index.json"))


def test_soft_targets_that_are_not_finite_are_not_stored(prepared, teachers, tmp_path):
    shutil.copytree(teachers / "seed-0", tmp_path / "teacher")
    (tmp_path / "teacher" / "stage.json").unlink()
    weights = load_tensors(tmp_path / "teacher" / "model.safetensors")
    weights["output.weight"] *= 1e38  # finite, but the logits overflow
    save_tensors(tmp_path / "teacher" / "model.safetensors", weights)
    for tail in ("sampled", "drawn", "even"):
        cuts = list(cuts_of(prepared))[:2]
        job = shard_job(prepared, teachers, tmp_path / tail, cuts, tail=tail, floor=0.02, draws=8)
        with pytest.raises(UserError, match=f"posteriors of {cuts[0].id} are not finite"):
            make_shard(dataclasses.replace(job, models=(tmp_path / "teacher",)))
        assert not list((tmp_path / tail).glob("shard-*"))


def test_inspection_shows_what_is_kept(prepared, store, capsys):
    inspect_stage.main(inspect_stage.Config(store, prepared.features, prepared.senones / "cuts_train.jsonl.gz"))
    printed = capsys.readouterr().out
    assert printed.count("| bytes per frame |") == 2
    targets = SoftTargets(store, prepared.features, 2.0)
    figures = inspect(targets, prepared.senones / "cuts_train.jsonl.gz", [])
    assert figures["frames"] == sum(figures["histogram"]) == stage_figures(store)["frames"]
    assert figures["bytes_per_frame"] == pytest.approx(
        stage_figures(store)["temperatures"]["2"]["bytes_per_frame"], abs=0.01
    )
    labels = {cut.id: cut.load_custom("senones") for cut in cuts_of(prepared)}
    best = {
        cut_id: targets.read(cut_id).batch(np.arange(len(labels[cut_id]))).classes[:, 0].numpy() for cut_id in targets
    }
    wrong = sum(int((best[cut_id] != labels[cut_id]).sum()) for cut_id in targets)
    assert figures["disagree"] == pytest.approx(wrong / figures["frames"])


def test_inspection_finds_the_most_probable_class_of_every_form(prepared, teachers, tmp_path, inline):
    found = []
    for tail in ("even", "sampled", "drawn"):
        folder = tmp_path / tail
        stage.main(store_config(prepared, teachers, folder, temperatures=(1.0,), tail=tail, draws=255))
        figures = inspect(SoftTargets(folder, prepared.features), prepared.senones / "cuts_train.jsonl.gz", [])
        found.append(figures["disagree"])
    assert 0 < found[0] < 0.1
    assert found == pytest.approx(found[:1] * 3, abs=0.01)


def test_inspection_lists_damage(prepared, store, tmp_path):
    shutil.copytree(store, tmp_path / "store")
    (tmp_path / "store" / "shard-00000" / "t1.tails.npy").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"1 shards cannot be read: .*t1\.tails\.npy"):
        inspect_stage.main(inspect_stage.Config(tmp_path / "store", prepared.features))
