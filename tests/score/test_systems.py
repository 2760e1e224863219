"""Lists of systems: names of folders, variables, each, faults, and what of a system is finished."""

from pathlib import Path

import pytest

from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, write_json
from asr_kd.score.systems import Names, Run, finished_runs, read_systems

RECIPE = Path(__file__).parents[2] / "recipes/librispeech/conf/systems.yaml"


def read(tmp_path, text, *variables):
    (tmp_path / "systems.yaml").write_text(text)
    return read_systems(tmp_path / "systems.yaml", tmp_path / "exp", variables)


def test_names_are_folders(tmp_path):
    known = Names(tmp_path / "exp", tmp_path / "exp" / "studies" / "small")
    assert known.folders("exp/gmm") == [tmp_path / "exp/gmm"]
    assert known.folders("student-1:0-1,3") == [known.out / "student-1" / f"seed-{n}" for n in (0, 1, 3)]
    assert known.folders("student-1:<2") == [known.out / "student-1" / f"seed-{n}" for n in (0, 1)]
    for wrong in ("student-1:first", "student-1:<", "student-1:<x"):
        with pytest.raises(UserError, match="no seeds"):
            known.folders(wrong)


def test_the_recipes_systems(tmp_path):
    exp = tmp_path / "exp"
    write_json(exp / "data" / "summary.json", {"train": {}, "dev": {}, "test": {}, "test_noise": {}})
    found = read_systems(RECIPE, exp, ("teachers=4", "seeds=2"))
    systems = {system.name: system for system in found.systems}
    assert list(systems) == ["gmm", "gmm_adapted", "baseline", "ensemble", "student", "quarter_hard", "quarter_student"]
    assert found.splits == ("dev", "test", "test_noise") and found.tune == exp / "teachers/seed-0"
    baseline = systems["baseline"].runs
    assert [run.models for run in baseline] == [(exp / f"teachers/seed-{n}",) for n in range(4)]
    assert [run.decode for run in baseline] == [*(exp / f"decode/baseline-{n}" for n in range(3)), None]
    assert [run.splits for run in baseline[:3]] == [("test", "test_noise"), ("test",), ("test",)]
    (ensemble,) = systems["ensemble"].runs
    assert len(ensemble.models) == 4 and ensemble.splits == ("test", "test_noise")
    assert ensemble.accuracy == exp / "accuracy/ensemble-0"
    (gmm,) = systems["gmm"].runs
    assert gmm.models == (exp / "gmm",) and gmm.accuracy is None
    assert (systems["gmm"].tune, systems["gmm"].tuned) == (exp / "gmm", exp / "tuned-gmm")
    (adapted,) = systems["gmm_adapted"].runs
    assert adapted.models == (exp / "adapted",) and systems["gmm_adapted"].tuned == exp / "tuned-gmm"
    assert {system.tuned for system in found.systems[2:]} == {exp / "tuned"}


@pytest.mark.parametrize(
    "text, fault",
    [
        ("{}", "needs systems"),
        ("systems: [{name: a}]", "needs kind, name, runs"),
        ("systems: [{name: a, kind: gmm, runs: a, colour: red}]", "needs kind, name, runs, and may have"),
        ("systems: [{name: a, kind: hybrid, runs: a}]", "kind of a must be one of gmm, adapted, single"),
        ("systems: [{name: a, kind: gmm, runs: a, decoded: 0}, {name: a, kind: gmm, runs: b, decoded: 0}]",
         "two systems are called a"),
        ("systems: [{name: a, kind: gmm, runs: a, decoded: 0, twin: b}]", "there is no system b"),
        ("systems: [{name: a, kind: adapted, runs: a, decoded: 0}]", "its twin must be .* the kind gmm"),
        ("systems: [{name: a, kind: gmm, runs: a}]", "tune must name a network"),
        ("systems: [{name: 'a-{x}', kind: gmm, runs: a, each: {y: [1]}}]", "not a variable"),
        ("systems: [{name: a", "is not valid YAML"),
        ("systems: [{name: a, kind: gmm, runs: a, name: b}]", "'name' occurs twice"),
        ("systems: {name: a}", "systems must be a list of entries"),
        ("systems: [{name: a, kind: gmm, runs: []}]", "runs of a must be NAME:SEEDS"),
        ("systems: [{name: a, kind: gmm, runs: a, decoded: -1}]", "decoded of a must be a whole number"),
        ("systems: [{name: a, kind: single, runs: 'a:3-1'}]", "are no seeds"),
        ("systems: [{name: a, kind: single, runs: 'a:0-99999999999'}]", "are no seeds"),
        ("systems: [{name: a, kind: gmm, runs: a, data: {graf: b}}]", "data has unknown keys .graf."),
        ("systems: [{name: 'a-{x', kind: gmm, runs: a, each: {x: [1]}}]", "mend the braces"),
        ("systems: [{name: 'a-{x}', kind: gmm, runs: a, each: 3}]", "each must be lists by variable"),
    ],
)  # fmt: skip
def test_bad_lists(tmp_path, text, fault):
    with pytest.raises(UserError, match=fault):
        read(tmp_path, text)


def test_variables_are_declared(tmp_path):
    text = "variables: {n: 2}\nsystems: [{name: a, kind: single, runs: 'a:<{n}', decoded: 0}]"
    assert len(read(tmp_path, text).systems[0].runs) == 2
    assert len(read(tmp_path, text, "n=3").systems[0].runs) == 3
    for wrong in ("m=3", "n", "n="):
        with pytest.raises(UserError, match="is not NAME=VALUE with a variable of"):
            read(tmp_path, text, wrong)
    with pytest.raises(UserError, match="does not exist"):
        read_systems(tmp_path / "absent.yaml", tmp_path)


def test_only_finished_folders_count(tmp_path):
    exp = tmp_path / "exp"
    text = "tune: net:0\nsystems: [{name: net, kind: single, runs: 'net:0,2,10', decoded: 3}]"
    (system,) = read(tmp_path, text).systems
    for seed in (0, 2, 10):
        Stage("train", exp / "net" / f"seed-{seed}", {}, []).finish()
        Stage("accuracy", exp / "accuracy" / f"net-{(0, 2, 10).index(seed)}", {}, []).finish()
    Stage("decode", exp / "decode" / "net-1", {}, []).finish()
    Stage("decode", exp / "decode" / "net-2", {}, []).begin()
    runs, faults = finished_runs(system, exp)
    assert [(run.seed, run.models[0].name, run.decode and run.decode.name) for run in runs] == [
        (0, "seed-0", None), (2, "seed-2", "net-1"), (10, "seed-10", None),
    ]  # fmt: skip
    assert faults == ["decode/net-0 is missing", "decode/net-2 is unfinished"]
    assert isinstance(runs[0], Run)
