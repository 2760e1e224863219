"""Stores written and read by other people's loops: with torch and NumPy alone, by several processes and sessions."""

import dataclasses
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from asr_kd.common.errors import UserError
from asr_kd.losses import average_distributions, frame_kd_loss
from asr_kd.soft_targets import SoftTargets, Writer, collate
from asr_kd.soft_targets import writer as writer_module
from asr_kd.soft_targets.shards import KEYS, SKIPPED

CLASSES = 9
EXACT = {"tail": "bucket", "floor": 0.0}  # keeps every class


def logits_of(*keys: str, frames: int = 12) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {key: torch.randn(frames + n, CLASSES, generator=generator) * 3 for n, key in enumerate(keys)}


def written(folder, utterances, **form):
    writer = Writer(folder, CLASSES, **(EXACT | form))
    for key, logits in utterances.items():
        writer.write(key, logits)
    return writer


def dense(rows):
    return dataclasses.replace(rows.batch(np.arange(len(rows))), tail="none").dense(CLASSES)


def test_what_is_written_is_read_by_key_and_range(tmp_path):
    utterances = logits_of("a", "b/ü 1", "c")
    written(tmp_path, utterances, temperatures=(1.0, 3.0)).finish()
    for temperature in (1.0, 3.0):
        store = SoftTargets(tmp_path, temperature=temperature)
        assert (list(store), len(store), store.num_classes) == (list(utterances), 3, CLASSES)
        assert "a" in store and "d" not in store
        for key, logits in utterances.items():
            expected = average_distributions([logits], temperature)
            torch.testing.assert_close(dense(store.read(key)), expected, atol=0.02, rtol=0)
            torch.testing.assert_close(dense(store.read(key, start=3, stop=7)), expected[3:7], atol=0.02, rtol=0)


def test_collated_targets_cost_what_each_utterance_costs(tmp_path):
    utterances = logits_of("a", "b", "c")
    written(tmp_path, utterances, temperatures=(2.0,)).finish()
    store = SoftTargets(tmp_path)
    parts = [store.read("b"), store.read("a", start=4, stop=9), store.read("c")]
    targets, lengths = collate(parts)
    assert lengths.tolist() == [13, 5, 14] and targets.classes.shape == (3, 14, targets.classes.shape[2])
    assert targets.probabilities[1, 5:].abs().max() == 0
    student = torch.randn(3, 14, CLASSES, dtype=torch.float64)
    found = frame_kd_loss(student, targets, lengths=lengths, temperature=2.0)
    each = [
        frame_kd_loss(student[i, : len(part)], part.batch(np.arange(len(part))), temperature=2.0)
        for i, part in enumerate(parts)
    ]
    assert found.weight == 32
    assert found.total.item() == pytest.approx(
        sum(len(p) * e.total.item() for p, e in zip(parts, each, strict=True)) / 32
    )


@pytest.mark.parametrize("kind", ["logits", "log-probabilities", "probabilities"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_every_kind_of_posteriors_gives_the_same_targets(tmp_path, kind, temperature):
    utterances = logits_of("a")
    given = {
        "logits": utterances["a"].numpy()[::-1].astype(">f8")[::-1],
        "log-probabilities": utterances["a"].log_softmax(1),
        "probabilities": utterances["a"].softmax(1).bfloat16(),
    }[kind]  # fmt: skip
    writer = Writer(tmp_path, CLASSES, temperatures=(temperature,), **EXACT)
    writer.write("a", given, kind)
    writer.finish()
    expected = average_distributions([utterances["a"]], temperature)
    torch.testing.assert_close(dense(SoftTargets(tmp_path).read("a")), expected, atol=0.02, rtol=0)


def test_several_teachers_are_averaged(tmp_path):
    teachers = list(logits_of("x", "y", frames=8).values())
    teachers[1] = teachers[1][:8]
    for mean in ("arithmetic", "geometric"):
        writer = Writer(tmp_path / mean, CLASSES, mean=mean, **EXACT)
        writer.write("a", teachers)
        writer.finish()
        expected = average_distributions(teachers, 1.0, mean)
        torch.testing.assert_close(dense(SoftTargets(tmp_path / mean).read("a")), expected, atol=0.02, rtol=0)


def test_later_sessions_add_utterances(tmp_path):
    utterances = logits_of("a", "b", "c", "d")
    first, second = ({key: utterances[key] for key in keys} for keys in ("ab", "cd"))
    writer = written(tmp_path, first)
    writer.skip("d", "its teacher\thad no time")
    assert writer.finish() == {"d": "its teacher\thad no time"}
    store = SoftTargets(tmp_path)
    assert list(store) == ["a", "b"] and store.skipped == {"d": "its teacher had no time"}
    with pytest.raises(UserError, match=r"no soft targets for d \(its teacher had no time\)"):
        store.read("d")
    writer = Writer(tmp_path, CLASSES, **EXACT)
    assert "a" in writer and "c" not in writer
    for key, logits in second.items():
        writer.write(key, logits)
    assert "c" in writer
    writer.close()
    with pytest.raises(UserError, match=r"unfinished: .*call Writer.finish once"):
        SoftTargets(tmp_path)
    assert writer.finish() == {}
    store = SoftTargets(tmp_path)
    assert list(store) == list("abcd") and store.skipped == {}
    torch.testing.assert_close(dense(store.read("d")), utterances["d"].softmax(1), atol=0.02, rtol=0)


PROCESS = """
import sys, torch
from asr_kd.soft_targets import Writer
folder, name = sys.argv[1:]
writer = Writer(folder, 9)
torch.manual_seed(int(name))
for number in range(40):
    writer.write(f"{name}-{number}", torch.randn(5, 9))
    if number % 4 == 3:
        writer.close()
heavy = {
    "lhotse", "k2", "kaldifst", "kaldi_hmm_gmm", "kaldiio", "kaldi_decoder", "scipy", "matplotlib", "tyro",
    "torchaudio", "soundfile", "safetensors", "tensorboard",
}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""


def test_two_processes_write_one_store_with_torch_and_numpy_alone(tmp_path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "store")]
    processes = [subprocess.Popen([*command, str(number)]) for number in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    with pytest.raises(UserError, match="unfinished"):
        SoftTargets(tmp_path / "store")
    Writer(tmp_path / "store", 9).finish()
    store = SoftTargets(tmp_path / "store")
    assert sorted(store) == sorted(f"{name}-{number}" for name in range(2) for number in range(40))
    assert len(list((tmp_path / "store").glob("shard-*"))) == 20
    assert all(len(store.read(key)) == 5 for key in store)
    assert not list((tmp_path / "store").glob(".*"))


def test_shards_are_written_as_they_fill(tmp_path, monkeypatch):
    monkeypatch.setattr(writer_module, "SHARD_FRAMES", 25)
    writer = written(tmp_path, logits_of(*"abcdef"))
    assert len(list(tmp_path.glob("shard-*"))) == 3  # those are on disk before the end
    again = Writer(tmp_path, CLASSES, **EXACT)  # after a kill
    assert [key for key in "abcdefg" if key in again] == [key for key in "abcdef" if key in writer]
    writer.finish()
    assert list(SoftTargets(tmp_path)) == list("abcdef")


def test_a_reader_goes_to_the_processes_of_a_data_loader(tmp_path):
    written(tmp_path, logits_of("a"), temperatures=(1.0, 2.0)).finish()
    store = SoftTargets(tmp_path, temperature=2.0)
    copy = pickle.loads(pickle.dumps(store))
    assert copy.temperature == 2.0
    np.testing.assert_array_equal(copy.read("a").codes, store.read("a").codes)


def test_a_shard_of_its_own_number_is_written_once(tmp_path):
    for number, key in ((1, "b"), (0, "a")):
        writer = written(tmp_path, logits_of(key), shard=number)
        writer.close()
    writer.write("c", logits_of("c")["c"])
    with pytest.raises(UserError, match="shard-00000 is complete: give another number"):
        writer.close()
    Writer(tmp_path, CLASSES, **EXACT).finish()
    assert list(SoftTargets(tmp_path)) == ["a", "b"]


def test_a_prior_for_the_tail(tmp_path):
    prior = torch.arange(1.0, CLASSES + 1) / 45
    writer = Writer(tmp_path, CLASSES, tail="prior", top=2, prior=prior.tolist())
    writer.write("a", logits_of("a")["a"])
    writer.finish()
    targets, _ = collate([SoftTargets(tmp_path).read("a")])
    torch.testing.assert_close(targets.prior, prior)
    torch.testing.assert_close(targets.dense(CLASSES).sum(-1), torch.ones(1, 12))
    with pytest.raises(UserError, match="needs a prior of 9 classes"):
        Writer(tmp_path / "other", CLASSES, tail="prior")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"posteriors": torch.randn(4, 8)}, r"have the shape \(4, 8\), not \(4, 9\)"),
        ({"posteriors": [torch.randn(4, 9), torch.randn(5, 9)]}, r"have the shape \(5, 9\), not \(4, 9\)"),
        ({"posteriors": torch.randn(9)}, "give floating-point numbers .frames, classes."),
        ({"posteriors": torch.zeros(0, 9)}, "at least one frame"),
        ({"posteriors": torch.zeros(4, 9, dtype=torch.int64)}, "give floating-point numbers"),
        ({"posteriors": np.zeros((4, 9), "S4")}, "give floating-point numbers"),
        ({"posteriors": np.zeros((4, 9), np.longdouble)}, "give floating-point numbers"),
        ({"posteriors": torch.full((4, 9), torch.nan)}, "posteriors of b are not finite"),
        ({"posteriors": torch.full((4, 9), torch.inf)}, "posteriors of b are not finite"),
        ({"posteriors": torch.full((4, 9), -torch.inf)}, "posteriors of b are not finite"),
        ({"posteriors": torch.full((4, 9), 0.1), "kind": "probabilities"}, "of b sum to 0.9 in frame 0.*must sum to 1"),
        ({"posteriors": torch.full((4, 9), torch.nan), "kind": "probabilities"}, "must sum to 1"),
        (
            {"posteriors": torch.randn(4, 9), "kind": "log-probabilities"},
            "log-probabilities of b sum to .* must sum to 1",
        ),
        ({"posteriors": torch.eye(9) * 2 - 1 / 9, "kind": "probabilities"}, "or are negative"),
        ({"key": "a"}, "two utterances of the transfer set have the id a"),
    ],
)
def test_posteriors_that_cannot_be_stored_are_refused(tmp_path, changes, message):
    writer = written(tmp_path, logits_of("a"))
    with pytest.raises(UserError, match=message):
        writer.write(**({"key": "b", "posteriors": torch.randn(4, 9)} | changes))
    writer.finish()
    assert list(SoftTargets(tmp_path)) == ["a"]  # what was good is kept


def test_stores_that_cannot_be_used_are_named(tmp_path, store):
    with pytest.raises(UserError, match=r"is no store of soft targets .it has no store.json"):
        SoftTargets(tmp_path)
    with pytest.raises(UserError, match="65537 classes: the store takes teachers with 1 to 65,536"):
        Writer(tmp_path, 65_537)
    with pytest.raises(UserError, match="temperatures must be positive and different"):
        Writer(tmp_path, 9, temperatures=(1.0, 1.0))
    with pytest.raises(UserError, match="would have no soft targets: all 0 utterances"):
        Writer(tmp_path / "empty", 9).finish()
    written(tmp_path / "mine", logits_of("a")).close()
    with pytest.raises(UserError, match="unfinished"):
        SoftTargets(tmp_path / "mine")
    with pytest.raises(UserError, match="soft targets with num_classes 9, not 8: write with the same"):
        Writer(tmp_path / "mine", 8, **EXACT)
    with pytest.raises(UserError, match=r"soft targets with temperatures \[1.0\], not \[2.0\]"):
        Writer(tmp_path / "mine", 9, temperatures=(2.0,), **EXACT)
    with pytest.raises(UserError, match="was made by a stage, which has finished: choose another folder"):
        Writer(store, 6)


def test_the_same_key_from_two_processes_is_refused_when_the_store_is_closed(tmp_path):
    writers = [Writer(tmp_path, CLASSES) for _ in range(2)]
    for writer in writers:
        writer.write("a", logits_of("a")["a"])
        writer.close()
    with pytest.raises(UserError, match="two utterances of the transfer set have the id a"):
        writers[0].finish()


def test_damage_is_named(tmp_path):
    written(tmp_path, logits_of("a", "b")).finish()
    for name, message in (
        (KEYS, f"{KEYS} is missing or damaged"), (SKIPPED, f"{SKIPPED} is missing or damaged"),
        ("store.json", "store.json is damaged"), ("shard-00000/t1.codes.npy", "t1.codes.npy is damaged"),
        ("shard-00000/index.json", "index.json is damaged"),
    ):  # fmt: skip
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content[:-3] + b"9" + content[-2:] if len(content) > 3 else b"x\ty\n")
        with pytest.raises(UserError, match=message):
            SoftTargets(tmp_path).read("a")
        path.write_bytes(content)
    (tmp_path / KEYS).unlink()
    with pytest.raises(UserError, match=f"{KEYS} is missing or damaged"):
        SoftTargets(tmp_path)
