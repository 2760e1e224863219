"""Teachers made elsewhere: their formats, kinds and frame rates, alone and with networks, stored and on the fly."""

import json

import kaldiio
import numpy as np
import pytest
import torch
from lhotse import CutSet, NumpyFilesWriter
from training import config, store_config

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, stage_figures
from asr_kd.features.normalise import Normaliser
from asr_kd.losses import average_distributions
from asr_kd.models.checkpoints import load_model
from asr_kd.models.posteriors import ensemble_logits
from asr_kd.soft_targets import SoftTargets, Writer, collate
from asr_kd.soft_targets import __main__ as stage
from asr_kd.soft_targets.config import ForeignTeachers
from asr_kd.soft_targets.posteriors import PosteriorTargets, open_teachers
from asr_kd.soft_targets.tables import open_table
from asr_kd.train import __main__ as train

SENONES = 6


@pytest.fixture(scope="module")
def cuts(prepared) -> list:
    return list(CutSet.from_file(prepared.senones / "cuts_train.jsonl.gz"))


@pytest.fixture(scope="module")
def logits(cuts) -> dict[str, np.ndarray]:
    """A good teacher: the label with a high score, the others at random."""
    random = np.random.default_rng(0)
    found = {}
    for cut in cuts:
        labels = cut.load_custom("senones")
        found[cut.id] = random.standard_normal((len(labels), SENONES)).astype(np.float32)
        found[cut.id][np.arange(len(labels)), labels] += 3
    return found


def save_folder(folder, arrays):
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return folder


def save(kind, root, cuts, arrays):
    """Write arrays in one of the formats; returns the path."""
    if kind == "folder":
        return save_folder(root / "folder", arrays)
    if kind in ("ark", "scp", "compressed"):
        method = {"compression_method": 2} if kind == "compressed" else {}
        kaldiio.save_ark(str(root / f"{kind}.ark"), arrays, scp=str(root / f"{kind}.scp"), **method)
        return root / f"{kind}.scp" if kind == "scp" else root / f"{kind}.ark"
    with NumpyFilesWriter(root / "arrays") as writer:
        lines = [
            cut.with_id(cut.id).to_dict()
            | {"custom": {"posteriors": writer.store_array(cut.id, arrays[cut.id]).to_dict()}}
            for cut in cuts if cut.id in arrays
        ]  # fmt: skip
    (root / "cuts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root / "cuts.jsonl"


def dense(rows):
    targets, _ = collate([rows])
    return torch.zeros(1, len(rows), SENONES).scatter_add(2, targets.classes, targets.probabilities)[0]


@pytest.mark.parametrize("kind", ["folder", "ark", "scp", "compressed", "manifest"])
def test_every_format_is_read(tmp_path, cuts, logits, kind):
    some = {cut.id: logits[cut.id] for cut in cuts[:3]}
    table = open_table(save(kind, tmp_path, cuts, some), "posteriors")
    assert cuts[2].id in table and cuts[3].id not in table
    for name in reversed(some):
        assert table.shape(name) == some[name].shape
        np.testing.assert_allclose(table.subset([name]).read(name), some[name], atol=0.1 if kind == "compressed" else 0)


@pytest.mark.parametrize("kind", ["logits", "log-probabilities", "probabilities"])
def test_a_store_of_posteriors_trains_a_student(prepared, cuts, logits, tmp_path, inline, capsys, kind):
    give = {
        "logits": lambda z: z,
        "log-probabilities": lambda z: z.log_softmax(1),
        "probabilities": lambda z: z.softmax(1),
    }
    arrays = {name: give[kind](torch.from_numpy(z)).numpy() for name, z in logits.items()}
    posteriors = save_folder(tmp_path / "posteriors", arrays)
    stage.main(store_config(prepared, None, tmp_path / "store", posteriors=(posteriors,), top=6, floor=0.0))
    assert f"posteriors: {kind} (recognised by {cuts[0].id}" in capsys.readouterr().out
    store = SoftTargets(tmp_path / "store", prepared.features, 2.0)
    name = cuts[5].id
    expected = average_distributions([torch.from_numpy(logits[name])], 2.0)
    torch.testing.assert_close(dense(store.read(name)), expected, atol=0.02, rtol=0)
    if kind == "probabilities":
        settings = config(prepared, tmp_path / "student", soft_targets=tmp_path / "store", temperature=2.0, epochs=2)
        train.main(settings)
        assert stage_figures(tmp_path / "student" / "seed-0")["dev_accuracy"] > 60


def test_posteriors_are_averaged_with_networks(prepared, teachers, cuts, logits, tmp_path, inline):
    posteriors = save_folder(tmp_path / "posteriors", logits)
    stage.main(
        store_config(prepared, teachers, tmp_path / "store", posteriors=(posteriors,), tail="even", top=6, floor=0.0)
    )
    models = [load_model(teachers / f"seed-{seed}") for seed in (0, 1)]
    ours = ensemble_logits(models, Normaliser.load(prepared.features)(cuts[7]))
    expected = average_distributions([*ours, torch.from_numpy(logits[cuts[7].id])], 2.0)
    found = dense(SoftTargets(tmp_path / "store", prepared.features, 2.0).read(cuts[7].id))
    torch.testing.assert_close(found, expected, atol=0.02, rtol=0)


def test_a_longer_frame_shift_is_declared(tmp_path):
    array = np.random.default_rng(0).standard_normal((49, SENONES)).astype(np.float32)  # of one second, as wav2vec 2.0
    folder = save_folder(tmp_path / "posteriors", {"a": array})
    (undeclared,) = open_teachers(ForeignTeachers(posteriors=(folder,)), ["a"])
    assert "its frames are 0.02 s apart, give --teacher-shift" in undeclared.fault("a", 100)
    (teacher,) = open_teachers(ForeignTeachers(posteriors=(folder,), teacher_shift=0.02), ["a"])
    found = teacher.read("a", 100).numpy()
    np.testing.assert_array_equal(found[:98], array.repeat(2, 0))
    np.testing.assert_array_equal(found[98:], array[[48, 48]])
    for frames, fits in ((94, True), (93, False), (102, True), (103, False)):
        assert (teacher.fault("a", frames) == "") == fits
    (odd,) = open_teachers(ForeignTeachers(posteriors=(folder,), teacher_shift=0.0125), ["a"])
    np.testing.assert_array_equal(odd.read("a", 61).numpy(), array[[int((t + 0.5) / 1.25) for t in range(61)]])


def test_lengths_may_differ_by_three_frames(tmp_path):
    folder = save_folder(tmp_path / "posteriors", {"a": np.eye(SENONES, dtype=np.float32)})
    (teacher,) = open_teachers(ForeignTeachers(posteriors=(folder,), posteriors_kind="logits"), ["a"])
    assert teacher.read("a", 9)[5:].tolist() == [[0, 0, 0, 0, 0, 1]] * 4
    assert len(teacher.read("a", 3)) == 3
    assert "has 6 frames of 0.01 s for it, the features have 10 of 0.01 s" in teacher.fault("a", 10)
    assert teacher.fault("a", 2)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory, cuts, logits):
    """Posteriors of which four cannot be used."""
    arrays = dict(logits)
    ids = [cut.id for cut in cuts]
    folder = save_folder(tmp_path_factory.mktemp("faulty") / "posteriors", arrays)
    (folder / f"{ids[0]}.npy").write_bytes(b"nonsense")  # the first shows neither kind nor classes
    (folder / f"{ids[1]}.npy").unlink()
    np.save(folder / f"{ids[2]}.npy", arrays[ids[2]][:-9])
    np.save(folder / f"{ids[3]}.npy", arrays[ids[3]][:, :4])
    return folder, ids[:4]


REASONS = ("is damaged", "has no posteriors of it", "has 231 frames of 0.01 s for it", "has the shape (240, 4) for it")


def test_utterances_that_cannot_be_used_are_left_out_and_listed(
    prepared, cuts, logits, faulty, tmp_path, inline, capsys
):
    posteriors, bad = faulty
    nan = logits[cuts[6].id].copy()
    nan[3, 2] = np.nan
    second = save_folder(tmp_path / "second", logits | {cuts[6].id: nan})
    stage.main(store_config(prepared, None, tmp_path / "store", posteriors=(posteriors, second)))
    assert "5 utterances have no soft targets and are left out in training" in capsys.readouterr().out
    store = SoftTargets(tmp_path / "store", prepared.features, 1.0)
    assert list(store.skipped) == [*bad, cuts[6].id]
    for reason, found in zip((*REASONS, "not finite: make them again"), store.skipped.values(), strict=True):
        assert reason in found
    assert len(store) == len(cuts) - 5
    train.main(config(prepared, tmp_path / "student", soft_targets=tmp_path / "store", temperature=1.0, epochs=1))
    seed = tmp_path / "student" / "seed-0"
    assert "5 utterances have no soft targets and are left out: see" in capsys.readouterr().out
    assert [line.split("\t")[0] for line in (seed / "skipped_train.tsv").read_text().splitlines()] == list(
        store.skipped
    )


def test_posteriors_on_the_fly(prepared, cuts, logits, faulty, tmp_path, inline, capsys):
    posteriors, bad = faulty
    settings = {"posteriors": (posteriors,), "temperature": 2.0, "epochs": 2}
    train.main(config(prepared, tmp_path / "student", **settings))
    seed = tmp_path / "student" / "seed-0"
    listed = dict(line.split("\t") for line in (seed / "skipped_train.tsv").read_text().splitlines())
    assert list(listed) == bad and all(reason in listed[name] for reason, name in zip(REASONS, bad, strict=True))
    assert stage_figures(seed)["dev_accuracy"] > 60
    assert read_json(seed / "model.json")["soft_targets"] is None
    name = cuts[-1].id
    targets = PosteriorTargets(open_teachers(ForeignTeachers(posteriors=(posteriors,)), [name]), 2.0)
    first, again = (targets.read(name, len(logits[name])) for _ in range(2))
    np.testing.assert_array_equal(first.codes, again.codes)  # in every epoch
    expected = average_distributions([torch.from_numpy(logits[name])], 2.0)
    assert (dense(first) - expected).abs().mean() < 0.01


def test_a_strangers_store_trains_a_student(prepared, cuts, logits, tmp_path, inline):
    writer = Writer(tmp_path / "store", SENONES)
    for name, array in logits.items():
        writer.write(name, array)
    writer.finish()
    train.main(config(prepared, tmp_path / "student", soft_targets=tmp_path / "store", epochs=2))
    assert stage_figures(tmp_path / "student" / "seed-0")["dev_accuracy"] > 60


def refused(prepared, tmp_path, message, **flags):
    with pytest.raises(UserError, match=message):
        stage.main(store_config(prepared, None, tmp_path / "store", **flags))
    with pytest.raises(UserError, match=message):
        train.main(config(prepared, tmp_path / "student", **flags))


def test_posteriors_that_cannot_be_used_at_all_are_named(prepared, cuts, logits, tmp_path, inline):
    name = cuts[0].id
    (tmp_path / "pipe.scp").write_text(f"{name} gunzip -c a.ark.gz |\n")
    (tmp_path / "range.scp").write_text(f"{name} a.ark:12[0:5]\n")
    (tmp_path / "gone.scp").write_text(f"{name} gone.ark:12\n")
    (tmp_path / "odd.txt").write_text("0.1 0.2\n")
    kaldiio.save_ark(str(tmp_path / "text.ark"), {name: logits[name]}, text=True)
    kaldiio.save_ark(str(tmp_path / "vector.ark"), {name: logits[name][0]})
    kaldiio.save_ark(str(tmp_path / "whole.ark"), {name: logits[name]})
    (tmp_path / "short.ark").write_bytes((tmp_path / "whole.ark").read_bytes()[:-7])
    integers = save_folder(tmp_path / "integers", {name: np.ones((240, SENONES), np.int64)})
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    np.save(pickled / f"{name}.npy", np.array([{}], object), allow_pickle=True)
    others = save_folder(tmp_path / "others", {"nobody": logits[name]})
    wide = save_folder(tmp_path / "wide", {cut.id: np.zeros((240, 8), np.float32) for cut in cuts})
    right = save_folder(tmp_path / "right", logits)
    bare = prepared.senones / "cuts_train.jsonl.gz"
    for path, message in (
        (tmp_path / "pipe.scp", "has a command .gunzip -c a.ark.gz .*: run it, and give the file that it makes"),
        (tmp_path / "range.scp", "only ARCHIVE:OFFSET can be read"), (tmp_path / "gone.scp", "gone.ark is missing"),
        (tmp_path / "odd.txt", "odd.txt is missing, or no folder of .npy files"),
        (tmp_path / "text.ark", "not binary: copy the table without ark,t"),
        (tmp_path / "vector.ark", "an entry is a 'FV', not a matrix"),
        (tmp_path / "short.ark", "too short for a matrix of 240 × 6"),
        (integers, "has int64 of shape .240, 6. for .*: give floating-point numbers"),
        (pickled, f"{name}.npy is damaged .*write it again with numpy.save"),
        (others, f"of no utterance of the transfer set .{name} and others.: name them by the ids of cuts"),
        (wide, "has 8 classes, and the cuts in .* have 6 senones: soft targets must be for the senones of the labels"),
        (bare, "no cut of .* has an array called posteriors: name the field with --posteriors-field"),
    ):  # fmt: skip
        refused(prepared, tmp_path, message, posteriors=(path,))
    refused(
        prepared, tmp_path, "wide has 8 classes and .*right has 6: teachers of one student", posteriors=(right, wide)
    )


def test_flags_that_contradict_each_other_are_named(prepared, teachers, store, tmp_path):
    with pytest.raises(UserError, match="there are no teachers: give --models, --posteriors, or both"):
        stage.main(store_config(prepared, None, tmp_path / "store"))
    with pytest.raises(UserError, match="--tail prior takes the prior of the first of --models"):
        stage.main(store_config(prepared, None, tmp_path / "store", posteriors=(tmp_path,), tail="prior"))
    with pytest.raises(UserError, match="--teachers and --posteriors all give soft targets: leave one of them out"):
        train.main(config(prepared, tmp_path / "x", teachers=(teachers / "seed-0",), posteriors=(tmp_path,)))
    with pytest.raises(UserError, match="--teacher-shift is 0"):
        ForeignTeachers(teacher_shift=0.0)
