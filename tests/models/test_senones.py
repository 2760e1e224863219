"""Things with other senones, though as many, are refused wherever they meet."""

import dataclasses
import shutil
from pathlib import Path

import pytest
from training import config, remark, store_config

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, write_json
from asr_kd.decode.config import Config as DecodeConfig
from asr_kd.decode.recogniser import make_recogniser
from asr_kd.features.__main__ import main as extract_features
from asr_kd.features.config import Config as FeaturesConfig
from asr_kd.models.senones import senones_of
from asr_kd.score.accuracy.__main__ import main as accuracy
from asr_kd.score.accuracy.config import Config as AccuracyConfig
from asr_kd.soft_targets.__main__ import main as soft_targets
from asr_kd.specialists.config import ExamplesConfig
from asr_kd.specialists.examples import open_examples
from asr_kd.train.loop import Trainer

REFUSED = "have different senones"


def with_other_senones(folder: Path, out: Path, name: str) -> Path:
    """A copy of ``folder`` whose description NAME.json has another identity of senones."""
    shutil.copytree(folder, out)
    write_json(out / f"{name}.json", {**read_json(out / f"{name}.json"), "senones": "other"})
    remark(out)
    return out


@pytest.fixture
def other(prepared, tmp_path) -> Path:
    return with_other_senones(prepared.senones, tmp_path / "senones", "hmm")


def test_networks_remember_their_senones(prepared, teachers):
    assert senones_of(teachers / "seed-0") == senones_of(prepared.senones) != ""


@pytest.mark.parametrize("source", ["store", "online", "start"])
def test_students_of_other_senones(prepared, other, teachers, store, tmp_path, source):
    teacher = teachers / "seed-0"
    given = {
        "store": {"soft_targets": store, "temperature": 2.0},
        "online": {"teachers": (teacher,)},
        "start": {"start_from": teacher},
    }[source]
    settings = config(prepared, tmp_path / "net", **given)
    Trainer(settings, 0)
    with pytest.raises(UserError, match=REFUSED):
        Trainer(dataclasses.replace(settings, cuts=other, out=tmp_path / "other"), 0)


def test_teachers_of_different_senones(prepared, teachers, tmp_path, inline):
    shutil.copytree(teachers / "seed-0", tmp_path / "teachers" / "seed-0")
    with_other_senones(teachers / "seed-1", tmp_path / "teachers" / "seed-1", "model")
    with pytest.raises(UserError, match=REFUSED):
        soft_targets(store_config(prepared, tmp_path / "teachers", tmp_path / "store"))


def test_frame_accuracy_on_other_senones(prepared, other, teachers, tmp_path, inline):
    system = f"a={teachers / 'seed-0'}"
    with pytest.raises(UserError, match=REFUSED):
        accuracy(AccuracyConfig((system,), prepared.features, other, tmp_path / "accuracy", splits=("dev",), jobs=1))


def test_generalist_of_other_senones(prepared, other, teachers):
    flags = {"features": prepared.features, "generalist": teachers / "seed-0"}
    open_examples(ExamplesConfig(cuts=prepared.senones, **flags))
    with pytest.raises(UserError, match=REFUSED):
        open_examples(ExamplesConfig(cuts=other, **flags))


def test_graph_of_other_senones(prepared, teachers, tmp_path, monkeypatch):
    monkeypatch.setattr("asr_kd.decode.recogniser.prepared_graph", lambda graph, *_: graph)
    graph = tmp_path / "graph"
    settings = DecodeConfig((teachers / "seed-0",), graph, prepared.features, in_process=True)
    for senones in (senones_of(prepared.senones), ""):
        write_json(graph / "graph.json", {"num_pdfs": 6, "senones": senones})
        make_recogniser(settings)
    for model in (teachers / "seed-0", prepared.senones):
        write_json(graph / "graph.json", {"num_pdfs": 6, "senones": "other"})
        with pytest.raises(UserError, match=REFUSED):
            make_recogniser(dataclasses.replace(settings, model=(model,)))


def test_features_of_another_front_end(prepared, teachers, tmp_path, monkeypatch, inline):
    """Features that are normalised by speaker for networks that know those normalised by utterance."""
    features, seed = tmp_path / "features", teachers / "seed-0"
    extract_features(FeaturesConfig(prepared.data, features, normalise="speaker", jobs=1))
    monkeypatch.setattr("asr_kd.decode.recogniser.prepared_graph", lambda graph, *_: graph)
    write_json(tmp_path / "graph" / "graph.json", {"num_pdfs": 6})
    refused = "was trained on 40 log-mels at 16000 Hz \\(.*\\), normalised by utterance, but .* has .* by speaker: make"
    for read in (
        lambda: make_recogniser(DecodeConfig((seed,), tmp_path / "graph", features, in_process=True)),
        lambda: open_examples(ExamplesConfig(cuts=prepared.senones, features=features, generalist=seed)),
        lambda: accuracy(AccuracyConfig((f"a={seed}",), features, prepared.senones, tmp_path / "a", splits=("dev",))),
        lambda: soft_targets(
            dataclasses.replace(store_config(prepared, teachers, tmp_path / "store"), features=features)
        ),
    ):
        with pytest.raises(UserError, match=refused):
            read()
