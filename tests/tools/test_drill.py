"""The drill's parts in small: damage, judges, kills, full disks, workers, limits of memory."""

import os
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from drills import judges, memory, recipe, workers  # noqa: E402
from drills.mutations import KINDS, mutate, takes_long  # noqa: E402
from drills.place import Place  # noqa: E402
from drills.process import Ended  # noqa: E402

from asr_kd.common.errors import UserError  # noqa: E402

#: A cheap stage for the place of a test.
FEATURES = "--data {exp}/data --out {out}"


@pytest.fixture
def place(prepared, tmp_path, monkeypatch) -> Place:
    """A place whose experiment has a prepared corpus."""
    monkeypatch.setitem(workers.FANOUTS, "features", FEATURES)
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp/data").symlink_to(prepared.data)
    return Place(tmp_path, tmp_path / "exp")


def test_mutations_are_seeded_and_change_what_they_damage():
    files = {
        "text": b"A B 1.5\nC D 2\n" * 9,
        "yaml": b"a: 1\nb: {c: [1, 2], epochs: 3}\n",
        "json": b'{"a": [1, {"b": 2}]}',
    }
    for kind, data in files.items():
        made = [mutate(data, kind, random.Random(seed)) for seed in range(60)]
        assert made == [mutate(data, kind, random.Random(seed)) for seed in range(60)]
        assert all(changed != data for _, changed in made)
        assert len({name for name, _ in made}) > 8
        assert KINDS[kind]
    assert takes_long(b"{train: {epochs: 1000000000}}") and not takes_long(b"{epochs: 3}")


def test_judges_notice_what_is_used_and_lost(tmp_path):
    for folder in ("out", "reference"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "a.npy", np.arange(3.0))
        (tmp_path / folder / "hyp_dev.tsv").write_text("one\tA B\ntwo\tC\n")
    ended = Ended(0, "", "", 1.0, 0)
    run = judges.Run(ended, tmp_path / "out", tmp_path / "reference", "", tmp_path / "a.npy", b"before", b"after")
    assert judges.same(run) == ""
    (tmp_path / "out/hyp_dev.tsv").write_text("one\tA B\ntwo\tD\n")
    assert "hyp_dev.tsv changed" in judges.same(run)
    (tmp_path / "out/failed_dev.tsv").write_text("two\tdamaged\n")
    assert judges.newly_listed(run) == {"two"}
    np.save(tmp_path / "out/a.npy", np.array([1.0, np.nan]))
    assert "a.npy" in judges.same(run) and "not finite" in judges.finite(run)
    assert judges.bad_characters("A\u2028B") and judges.bad_characters("A\ufffd") and not judges.bad_characters("É’")


@pytest.fixture(scope="module")
def small_recipe(prepared, tmp_path_factory) -> recipe.Recipe:
    """Corpus and features of the prepared corpus."""
    parts = ("--train", "train-x", "--dev", "dev-x", "--test", "test-x")
    corpus = ("--corpus-dir", str(prepared.data.parent / "corpus"), *parts)
    flags = ("--conf", str(ROOT / "tests/tiny.yaml"), *corpus, "--stop-stage", "2")
    return recipe.Recipe(tmp_path_factory.mktemp("recipe"), flags)


def test_killed_recipes_end_with_the_same_bytes(small_recipe, tmp_path):
    (done,) = recipe.kill_rounds(small_recipe, tmp_path / "kills.jsonl", rounds=1, kills=1, seed=1)
    assert done["status"] == 0 and done["different"] == [] and len(done["kills"]) == 1
    assert len(recipe.results(small_recipe.exp)) > 40
    path = next(path for path in recipe.results(small_recipe.exp).values() if path.suffix == ".npy")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert small_recipe.different() == [str(path.relative_to(small_recipe.exp))]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_full_disks_end_with_a_sentence_and_the_same_bytes(small_recipe, tmp_path):
    try:
        with recipe.Disk(tmp_path / "disk"):
            pass
    except UserError:
        pytest.skip("mounting is not allowed here")
    (done,) = recipe.disk_rounds(small_recipe, tmp_path / "disks.jsonl", rounds=1, moments=1, seed=3)
    assert done["status"] == 0 and done["different"] == []
    (full,) = done["full"]
    assert full["status"] and "disk is full" in full["error"]


def test_a_killed_worker_and_half_the_memory_end_with_a_sentence(place):
    command = workers.Command(place, "features", ("--jobs", "1"))
    needed = memory.need(command)
    expected = command.results()
    assert len(expected) > 40
    shutil.copytree(place.work / "out", place.root / "undisturbed")
    # The worker is killed as soon as there is one, and it takes seconds to import its packages.
    outcome = workers.disturb(command, "killed", workers.local_workers, 0.0, random.Random(0), told=True)
    assert outcome == "sentence, then same"
    assert memory._outcome(command, needed // 2, expected) == "sentence, then same"
