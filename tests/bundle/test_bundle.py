"""Bundles of small networks: the same scores and words as the trained network's, offline, in streams, without torch."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import kaldifst
import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from bundles import CONFIDENCE, SENONES, WITHOUT_TORCH, with_confidences, write_graph
from lhotse import CutSet
from onnx import TensorProto, helper, numpy_helper
from pages import fenced
from torch import nn
from training import inline_jobs

from asr_kd.bundle.__main__ import main
from asr_kd.bundle.build import _check
from asr_kd.bundle.confidences import Judged, fit_confidences, judge
from asr_kd.bundle.config import Config
from asr_kd.bundle.export import _transpose_weights
from asr_kd.bundle.measure import Form, Forms
from asr_kd.bundle.network import _FixedNorm
from asr_kd.bundle.sherpa import CHUNK, RIGHT
from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, write_json
from asr_kd.decode.acoustics import load_scorer
from asr_kd.features.extractors import compute_features
from asr_kd.features.front_end import FrontEnd
from asr_kd.features.normalise import Normaliser
from asr_kd.features.parts import parts
from asr_kd.lang.openfst import add_to_words
from asr_kd.runtime import Recogniser
from asr_kd.runtime.__main__ import main as run_bundle
from asr_kd.runtime.bundle import FLOAT, GRAPH, INT8, Bundle
from asr_kd.runtime.network import whole_inputs
from asr_kd.runtime.stream import Settings
from asr_kd.score.wer import Reference
from asr_kd.train import __main__ as train
from asr_kd.train.config import Config as TrainConfig

ROOT = Path(__file__).parents[2]
RATE = 16000


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph of six words that last as long as their senone; the first senone is silence."""
    return write_graph(tmp_path_factory.mktemp("graph"))


@pytest.fixture(scope="module")
def folders(prepared, teachers, graph, tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """Networks and their bundles, by kind."""
    root = tmp_path_factory.mktemp("bundles")
    sizes = ("width=32", "bottleneck=8", "strides=[1, 3]")
    with inline_jobs():
        train.main(
            TrainConfig(
                prepared.features, prepared.senones, root / "tdnnf", network="tdnnf", network_args=sizes, epochs=2,
                chunk=64, batch_chunks=4, seeds=(0,), jobs=1,
            )
        )  # fmt: skip
    networks = {"dnn": teachers / "seed-0", "tdnnf": root / "tdnnf/seed-0"}
    for name, network in networks.items():
        main(
            Config(
                network,
                graph,
                prepared.features,
                root / f"{name}-bundle",
                acoustic_scale=0.3,
                insertion_penalty=0.5,
                sherpa_onnx=True,
            )
        )
    return {name: (network, root / f"{name}-bundle") for name, network in networks.items()}


def samples_of(prepared, split: str = "test") -> list[np.ndarray]:
    return [cut.load_audio()[0] for cut in CutSet.from_file(prepared.features / f"cuts_{split}.jsonl.gz")]


@pytest.mark.parametrize("kind", ["dnn", "tdnnf"])
def test_scores_are_those_of_the_trained_network(prepared, folders, kind: str) -> None:
    network, bundle = folders[kind]
    as_float, as_int8 = (Recogniser.from_bundle(bundle, quantised) for quantised in (False, True))
    front_end = FrontEnd.load(prepared.features)
    scorer = load_scorer([network], prepared.features, SENONES, (0,))
    for number, samples in enumerate(samples_of(prepared)):
        samples = np.concatenate([np.zeros(3000 * number, np.float32), samples[: 20000 + 77 * number]])
        features = Normaliser(front_end).normalise(compute_features(front_end, samples))
        np.testing.assert_allclose(as_float.network.whole(samples, "features"), features, atol=2e-3)
        expected = 0.3 * scorer.scores(features, 0, len(features))
        np.testing.assert_allclose(as_float.scores(samples), expected, atol=1e-3)
        assert np.abs(as_int8.scores(samples) - expected).mean() < 0.1
    assert number > 3


def test_new_words_are_recognised(prepared, folders, tmp_path, capsys) -> None:
    bundle, samples = folders["dnn"][1], samples_of(prepared)[0]
    before = Recogniser.from_bundle(bundle)(samples)
    old = before.words[0].text
    (tmp_path / "words.tsv").write_text(f"new\t{old.replace('W', 'P')}\t0.01\n")
    recogniser = Recogniser.from_bundle(bundle, new_words=tmp_path / "words.tsv")
    after = recogniser(samples)
    assert after.text == before.text.replace(old, "NEW")
    assert [word[1:3] for word in after.words] == [word[1:3] for word in before.words]
    stream = recogniser.stream()
    stream.accept(samples)
    assert "NEW" in stream.finish().text.split()
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert run_bundle([str(bundle), str(tmp_path / "a.wav"), "--words", str(tmp_path / "words.tsv")]) == 0
    assert capsys.readouterr().out.rstrip("\n").split("\t")[1] == after.text
    (tmp_path / "words.tsv").write_text("new\tQ\n")
    with pytest.raises(SystemExit, match="has no phone Q"):
        run_bundle([str(bundle), str(tmp_path / "a.wav"), "--words", str(tmp_path / "words.tsv")])


@pytest.mark.parametrize("kind", ["dnn", "tdnnf"])
def test_a_long_recording_is_normalised_in_segments(prepared, folders, kind: str) -> None:
    network, bundle = folders[kind]
    recogniser, front_end = Recogniser.from_bundle(bundle, quantised=False), FrontEnd.load(prepared.features)
    gains = itertools.cycle((1.0, 0.05, 0.3))
    speech = [gain * samples for gain, samples in zip(gains, samples_of(prepared) * 3, strict=False)]
    samples = np.concatenate([*speech[:6], np.full(6 * RATE, 1e-6, np.float32), *speech[6:]])[: 30 * RATE]
    assert len(samples) == 30 * RATE
    features = Normaliser(front_end).normalise(compute_features(front_end, samples))
    expected = 0.3 * load_scorer([network], prepared.features, SENONES, (0,)).scores(features, 0, len(features))
    near = np.abs(recogniser.scores(samples) - expected).max(1) < 1e-3
    assert near.mean() > 0.7  # all but what is near the bounds of segments, which here has both sides' normalisation


def test_a_bundle_is_small_and_says_what_it_is(folders) -> None:
    _, bundle = folders["dnn"]
    card = (bundle / "README.md").read_text()
    assert "| int8 |" in card and "python -m asr_kd.runtime" in card and str(bundle.parent) not in card
    assert "It knows 6 words, and hears nothing else: W1 W2 W3 W4 W5 W6." in card and "utterances of" in card
    figures = read_json(bundle / "stage.json")["figures"]
    assert figures["float32"]["wer"] == figures["trained"]["wer"]
    assert figures["int8, streams"]["rtf"] is None and "| int8, streams |" in card
    assert figures["int8"]["bytes"] < 0.5 * figures["float32"]["bytes"]
    golden = read_json(bundle / "golden/words.json")
    recogniser = Recogniser.from_bundle(bundle, quantised=False)
    for number, known in golden.items():
        samples, scores = (np.load(bundle / f"golden/{number}-{name}.npy") for name in ("samples", "scores"))
        np.testing.assert_allclose(recogniser.scores(samples)[::10], scores, atol=1e-4)
        assert recogniser(samples).text == known["words"] != ""


def test_words_have_times(prepared, folders) -> None:
    recogniser = Recogniser.from_bundle(folders["dnn"][1])
    samples = samples_of(prepared)[0]
    words = recogniser(samples).words
    times = [time for word in words for time in (word.begin, word.end)]
    assert len(words) > 3 and times == sorted(times) and times[0] >= 0 and times[-1] <= len(samples) / RATE
    changes = np.arange(0, times[-1] + 0.2, 0.2)  # every word of the corpus has 0.2 s
    assert np.mean([np.abs(changes - time).min() < 0.04 for time in times]) > 0.9


def test_a_graph_without_pronunciations_gives_the_times_of_its_labels(prepared, folders, tmp_path: Path) -> None:
    exact = Recogniser.from_bundle(folders["dnn"][1])
    shutil.copytree(folders["dnn"][1], tmp_path / "bundle")
    for name in ("graph/pronunciations.json", "stage.json"):
        (tmp_path / "bundle" / name).unlink()
    labels = Recogniser.from_bundle(tmp_path / "bundle")
    samples = samples_of(prepared)[0]
    assert labels.graph.finder is None and labels(samples).text == exact(samples).text
    assert all(word.begin < word.end for word in labels(samples).words)


def test_confidences_come_from_the_scores_of_a_words_frames(prepared, folders, tmp_path: Path) -> None:
    assert read_json(folders["dnn"][1] / "decode.json")["confidence"] == []  # nothing of its corpus is recognised
    assert "Words have no confidence" in (folders["dnn"][1] / "README.md").read_text()
    recogniser = Recogniser.from_bundle(with_confidences(folders["dnn"][1], tmp_path / "bundle"))
    clean = samples_of(prepared)[0]
    samples = clean + np.random.default_rng(0).normal(scale=0.02, size=len(clean)).astype(np.float32)
    words, scores = recogniser(samples).words, recogniser.scores(samples)
    logs = scores / 0.3 - np.log(np.exp(scores.astype(float) / 0.3).sum(1, keepdims=True))
    for word in words:
        first, last = round(100 * word.begin), round(100 * word.end)
        own = logs[first:last, int(word.text[1:]) - 1]  # a word is one senone
        values = np.exp(own).mean(), -np.sqrt(-own.mean()), np.log(len(own)), 1
        assert word.confidence == pytest.approx(1 / (1 + np.exp(-(values @ np.array(CONFIDENCE)))), abs=2e-3)
    sure = [word.confidence for word in words]
    assert len(words) > 3 and np.mean(sure) < np.mean([word.confidence for word in recogniser(clean).words])
    assert all(word.confidence is None for word in Recogniser.from_bundle(folders["dnn"][1])(samples).words)


def test_streams_have_confidences_too(prepared, folders, tmp_path: Path) -> None:
    recogniser = Recogniser.from_bundle(with_confidences(folders["dnn"][1], tmp_path / "bundle"))
    samples = samples_of(prepared)[0]
    stream = recogniser.stream(Settings(begin=10**6, endpoint=0, prior=0.0))
    stream.accept(samples)
    assert stream.finish() == recogniser(samples)
    stream = recogniser.stream()
    stream.accept(samples)
    early = stream.partial().words
    stream.finish()
    assert len(early) > 3 and all(word.confidence and 0 < word.confidence < 1 for word in early)


def test_confidences_are_fitted_to_the_words_of_dev() -> None:
    """What is measured of a word tells how often such words are right."""
    rng, form = np.random.default_rng(0), Form("int8", 0)
    for split, count in (("dev", 2000), ("test", 2000), ("tiny", 30), ("empty", 0)):
        values = rng.normal(size=(count, 3))
        form.measures[split] = list(values)
        form.right[split] = (rng.random(count) < 1 / (1 + np.exp(-(values @ [2.0, 1.0, 0.0] + 1)))).tolist()
    weights = fit_confidences(form, "dev")
    assert np.abs(np.array(weights) - [2, 1, 0, 1]).max() < 0.3
    judged = judge(form, weights)
    assert [*judged] == ["dev", "test", "tiny"] and judged["test"].words == 2000
    assert 0.85 < judged["test"].auc < 0.95 and judged["test"].error < 4
    assert fit_confidences(form, "tiny") == fit_confidences(form, "empty") == () and judge(form, ()) == {}
    form.right["tiny"] = [True] * 30
    assert judge(form, weights)["tiny"] == Judged(30, None, judge(form, weights)["tiny"].error)


def test_a_damaged_map_of_confidences_is_named(folders, tmp_path: Path) -> None:
    bundle = with_confidences(folders["dnn"][1], tmp_path / "bundle")
    write_json(bundle / "decode.json", {**read_json(bundle / "decode.json"), "confidence": [1.0, 2.0]})
    with pytest.raises(UserError, match=r"decode\.json is damaged or of another version \(confidence\): make the"):
        Recogniser.from_bundle(bundle)


@pytest.mark.parametrize("kind", ["dnn", "tdnnf"])
def test_a_stream_that_waits_gives_the_words_of_the_recording(prepared, folders, kind: str) -> None:
    recogniser = Recogniser.from_bundle(folders[kind][1])
    for samples in samples_of(prepared)[:3]:
        stream = recogniser.stream(Settings(begin=10**6, endpoint=0, prior=0.0))
        for part in np.array_split(samples, 7):
            stream.accept(part)
        assert not stream.partial().words
        assert stream.finish() == recogniser(samples) == stream.finish()


@pytest.mark.parametrize("kind", ["dnn", "tdnnf"])
def test_the_words_of_a_stream_do_not_depend_on_its_packets(prepared, folders, kind: str) -> None:
    recogniser = Recogniser.from_bundle(folders[kind][1])
    samples = np.concatenate(samples_of(prepared)[:3])
    results = []
    for size in (len(samples), 1600, 333):
        stream = recogniser.stream()
        for start in range(0, len(samples), size):
            stream.accept(samples[start : start + size])
        results.append(stream.finish())
    assert results[0] == results[1] == results[2] and len(results[0].words) > 10


@pytest.mark.parametrize(("again", "seconds"), [(0.0, 2.0), (3.0, 5.0)])
def test_a_stream_shows_words_and_keeps_few_samples(prepared, folders, again: float, seconds: float) -> None:
    recogniser = Recogniser.from_bundle(folders["dnn"][1])
    stream = recogniser.stream(Settings(again=again))
    seen, kept = Counter(), []
    for samples in samples_of(prepared):
        for part in np.array_split(samples, 10):
            stream.accept(part)
            seen[len(stream.partial().words)] += 1
            kept.append(len(stream._samples) / RATE)
    assert len(seen) > 10 and max(kept) < seconds and kept[-1] < 2.0
    assert max(kept) > again  # so it can be recognised again


@pytest.mark.parametrize("kind", ["dnn", "tdnnf"])
def test_an_utterance_that_has_ended_has_the_words_of_a_recording(prepared, folders, kind: str) -> None:
    recogniser = Recogniser.from_bundle(folders[kind][1])
    for samples in samples_of(prepared):
        stream = recogniser.stream(Settings(endpoint=0))
        stream.accept(samples)
        assert stream.finish().text == recogniser(samples).text


def test_a_pause_ends_an_utterance(prepared, folders) -> None:
    recogniser = Recogniser.from_bundle(folders["dnn"][1])
    samples, pause = samples_of(prepared)[0], np.zeros(2 * RATE, np.float32)
    stream = recogniser.stream()
    stream.accept(np.concatenate([samples, pause]))
    ended = stream._words
    assert ended and stream._search.first > len(samples) / 160 and stream.partial().words == ended
    stream.accept(samples)
    assert stream.finish().words[: len(ended)] == ended and len(stream.finish().words) > len(ended)


@pytest.mark.parametrize("samples", [np.zeros(0), np.zeros(RATE), np.full(50, 0.1)])
def test_a_stream_without_speech_has_no_words(folders, samples: np.ndarray) -> None:
    stream = Recogniser.from_bundle(folders["dnn"][1]).stream()
    stream.accept(samples)
    assert stream.finish().text == ""


def test_strange_samples_are_refused(folders) -> None:
    recogniser = Recogniser.from_bundle(folders["dnn"][1])
    stream = recogniser.stream()
    for samples in (np.array([0.1, np.nan]), np.array([np.inf]), np.zeros((2, 3)), np.array([1e20])):
        with pytest.raises(UserError, match="one channel of finite numbers"):
            stream.accept(samples)
    stream.finish()
    with pytest.raises(UserError, match="has been finished"):
        stream.accept(np.zeros(10))
    for samples, message in (
        (np.zeros(0), "no samples"), (np.zeros(100), "shorter than 0.1 s"), (np.zeros(RATE), "digital silence"),
        (np.zeros((10, 2)), "one channel"), (np.full(RATE, np.nan), "NaN"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            recogniser(samples)


def test_long_recordings_are_cut_at_pauses(prepared, folders) -> None:
    recogniser = Recogniser.from_bundle(folders["dnn"][1])
    speech = np.concatenate([np.concatenate([s, np.zeros(4000, np.float32)]) for s in samples_of(prepared) * 3])
    silence = np.random.default_rng(0).normal(scale=1e-5, size=40 * RATE).astype(np.float32)
    samples = np.concatenate([speech, silence, np.zeros(40 * RATE, np.float32), speech])
    found = list(parts([samples], 160))
    assert all(0 < len(part) <= 1500 * 160 for _, part in found) and len(found) < len(samples) / RATE / 8
    for first, part in found:
        np.testing.assert_array_equal(part, samples[first * 160 : first * 160 + len(part)])
    heard = sum(np.abs(part).max() > 0.01 for _, part in found)
    assert len(found) <= heard + 1 and max(len(part) for _, part in found) > 750 * 160
    assert sum(np.count_nonzero(np.abs(part) > 0.01) for _, part in found) == np.count_nonzero(np.abs(samples) > 0.01)
    blocks = np.array_split(samples, 50)
    for a, b in itertools.zip_longest(found, parts(blocks, 160)):
        assert a.first == b.first and np.array_equal(a.samples, b.samples)
    begins = [word.begin for word in recogniser(samples).words]
    assert begins == sorted(begins) and begins[-1] > len(samples) / RATE - 5


def test_a_penalty_is_part_of_the_graph(graph: Path, folders, tmp_path: Path) -> None:
    add_to_words(graph / "HCLG.fst", tmp_path / "same.fst", 0.0)
    assert (tmp_path / "same.fst").read_bytes() == (graph / "HCLG.fst").read_bytes()
    before, after = (
        kaldifst.StdVectorFst.read(str(path)).to_str(show_weight_one=True).split("\n")
        for path in (graph / "HCLG.fst", folders["dnn"][1] / GRAPH)
    )
    changed = [(a.split(), b.split()) for a, b in zip(before, after, strict=True) if a != b]
    assert len(changed) == SENONES - 1
    assert all(a[3] != "0" and float(b[4]) == float(a[4]) + 0.5 for a, b in changed)


def test_damaged_bundles_are_refused_by_name(folders, tmp_path: Path) -> None:
    names = ("decode.json", "model.onnx", "model.int8.onnx", "graph/HCLG.fst", "graph/words.txt", "stage.json")
    for name in names:
        shutil.copytree(folders["dnn"][1], tmp_path / "bundle", dirs_exist_ok=True)
        path = tmp_path / "bundle" / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError, match=name):
            Recogniser.from_bundle(tmp_path / "bundle", quantised=name != FLOAT)
    (tmp_path / "bundle/stage.json").unlink()
    (tmp_path / "bundle/graph/HCLG.fst").unlink()
    with pytest.raises(UserError, match=r"HCLG\.fst is missing"):
        Recogniser.from_bundle(tmp_path / "bundle")
    (tmp_path / "bundle/graph/HCLG.fst").write_text("no graph")
    with pytest.raises(UserError, match=r"HCLG\.fst is damaged"):
        Recogniser.from_bundle(tmp_path / "bundle")
    with pytest.raises(UserError, match="is no bundle"):
        Recogniser.from_bundle(tmp_path)


def test_a_channel_can_be_chosen(prepared, folders, tmp_path: Path, capsys) -> None:
    bundle, (one, other) = folders["dnn"][1], (samples[:20000] for samples in samples_of(prepared)[:2])
    soundfile.write(tmp_path / "a.wav", np.stack([one, other], 1), RATE, subtype="FLOAT")
    recogniser = Recogniser.from_bundle(bundle)
    for channel, samples in enumerate((0.5 * (one + other), one, other)):
        assert recogniser(tmp_path / "a.wav", channel) == recogniser(samples)
    assert run_bundle([str(bundle), str(tmp_path / "a.wav"), "--channel", "2", "--format", "ctm"]) == 0
    assert all(line.split()[1] == "2" for line in capsys.readouterr().out.splitlines())
    assert run_bundle([str(bundle), str(tmp_path / "a.wav"), "--channel", "3"]) == 1
    assert "has no channel 3, it has 2" in capsys.readouterr().err


def test_the_runtime_recognises_files_without_torch(prepared, folders, tmp_path: Path) -> None:
    recogniser, samples = Recogniser.from_bundle(folders["dnn"][1]), samples_of(prepared)[0]
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "b.flac", np.stack([samples, samples], 1), 44100)
    (tmp_path / "c.wav").write_text("words")
    files = [tmp_path / name for name in ("a.wav", "b.flac", "c.wav", "d.wav")]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "asr_kd.runtime", folders["dnn"][1], *files, "--format", "jsonl"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["file"] for row in rows] == [str(path) for path in files]
    assert " ".join(word["text"] for word in rows[0]["words"]) == recogniser(samples).text
    assert rows[1]["words"] and "cannot be read as audio" in rows[2]["error"] and "d.wav" in rows[3]["error"]
    assert "Traceback" not in done.stderr


def test_words_are_printed_with_times(prepared, folders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, samples = str(with_confidences(folders["dnn"][1], tmp_path / "bundle")), samples_of(prepared)[0]
    soundfile.write(tmp_path / "a b.wav", samples, RATE, subtype="FLOAT")
    words, printed = Recogniser.from_bundle(bundle)(samples).words, {}
    for form in ("ctm", "srt", "vtt"):
        assert run_bundle([bundle, str(tmp_path / "a b.wav"), "--format", form]) == 0
        printed[form] = capsys.readouterr().out
    rows = [line.split()[1:] for line in printed["ctm"].splitlines()]
    assert rows == [["1", f"{w.begin:.2f}", f"{w.end - w.begin:.2f}", w.text, f"{w.confidence:.3f}"] for w in words]
    assert run_bundle([bundle, str(tmp_path / "a b.wav"), "--format", "jsonl"]) == 0
    assert json.loads(capsys.readouterr().out)["words"] == [word._asdict() for word in words]
    assert printed["srt"].startswith("1\n00:00:0") and printed["vtt"].startswith("WEBVTT\n\n00:00:0")
    with pytest.raises(SystemExit, match="2 files cannot share subtitles: give one file at a time"):
        run_bundle([bundle, "a.wav", "b.wav", "--format", "srt"])


@pytest.mark.parametrize("kind", ["dnn", "tdnnf"])
def test_sherpa_onnx_recognises_the_words_of_our_stream(prepared, folders, kind: str, tmp_path: Path) -> None:
    """The program of the page, in a process of its own, since sherpa-onnx has an onnxruntime of its own."""
    (program,) = (code for code in fenced("bundle.md", "python") if "sherpa_onnx" in code)
    recogniser = Recogniser.from_bundle(folders[kind][1], quantised=False)
    expected = []
    for number, samples in enumerate(samples_of(prepared)):
        soundfile.write(tmp_path / f"{number}.wav", samples, RATE, subtype="FLOAT")
        stream = recogniser.stream(Settings(chunk=CHUNK, look_ahead=RIGHT, endpoint=0, again=0))
        stream.accept(np.concatenate([samples, np.zeros(RATE, np.float32)]))
        expected.append(stream.finish().text)
    files = sorted(map(str, tmp_path.glob("*.wav")))
    done = subprocess.run(
        [sys.executable, "-c", program, folders[kind][1], *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == expected and len(expected) > 3 and all(expected)


def test_worse_bundles_are_refused(graph: Path, prepared, tmp_path: Path) -> None:
    config = Config(tmp_path, graph, prepared.features, tmp_path / "out", splits=("dev",))

    def form(*wrong: int, other: str = "Y") -> Form:
        """Of utterances of 50 words with so many wrong ones."""
        made, names = Form("int8", 1), list(map(str, range(len(wrong))))
        made.references["dev"] = dict.fromkeys(names, Reference(("X",) * 50, "speaker"))
        made.words["dev"] = {name: [other] * n + ["X"] * (50 - n) for name, n in zip(names, wrong, strict=True)}
        made.references["test"], made.words["test"] = {"0": Reference(("X",), "speaker")}, {"0": ["Y"]}
        return made

    def check(before: Sequence[int], after: Sequence[int], other: str = "Y") -> None:
        _check(config, Forms(form(*before), form(*before, other=other), form(*after), form(*after)))

    check([1] * 20, [1] * 20)
    check([1] * 20, [2] * 5 + [0, 4] + [1] * 13)  # seven more are more than three, but in few utterances: chance
    with pytest.raises(UserError, match=r"int8 costs more than --tolerance 0\.3 .*beyond chance .*int8 2\.90 %"):
        check([1] * 20, [2] * 9 + [1] * 11)
    with pytest.raises(UserError, match=r"beyond chance .*int8 8\.00 %"):
        check([1] * 2, [3, 5])  # however few utterances there are
    with pytest.raises(UserError, match="other words than the trained one in 20 utterances of dev"):
        check([1] * 20, [1] * 20, other="Z")


@pytest.mark.parametrize("kind", ["dnn", "tdnnf"])
def test_every_weight_of_the_network_is_in_int8(folders, kind: str) -> None:
    as_float, as_int8 = (
        {tuple(weight.dims): weight.data_type for weight in onnx.load(folders[kind][1] / name).graph.initializer}
        for name in (FLOAT, INT8)
    )
    matrices = [shape for shape in as_float if len(shape) == 2 and min(shape) > 2]
    assert len(matrices) > 2 and all(as_int8[shape] == TensorProto.INT8 for shape in matrices)


@pytest.mark.parametrize("kind", ["dnn", "tdnnf"])
def test_int8_overflows_on_no_processor(prepared, folders, kind: str) -> None:
    """AVX2 without VNNI adds pairs of products in 16 bits; onnxruntime without optimisation computes in float32."""
    path, bundle = folders[kind][1] / INT8, Bundle.load(folders[kind][1])
    weights = [
        numpy_helper.to_array(weight) for weight in onnx.load(path).graph.initializer
        if weight.data_type == TensorProto.INT8 and len(weight.dims) == 2
    ]  # fmt: skip
    assert len(weights) > 2 and max(np.abs(weight.astype(int)).max() for weight in weights) <= 64
    levels = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    fast, exact = (onnxruntime.SessionOptions() for _ in levels)
    fast.graph_optimization_level, exact.graph_optimization_level = levels
    for samples in samples_of(prepared):
        scores, expected = (
            onnxruntime.InferenceSession(path.read_bytes(), options).run(["scores"], whole_inputs(bundle, samples))[0]
            for options in (fast, exact)
        )
        assert np.abs(scores - expected).mean() < 0.01 * expected.std()


@pytest.mark.parametrize("axes", [None, [0, 2, 1]])
def test_transposed_weights_keep_their_values(axes: list[int] | None, tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    node = helper.make_node("Transpose", ["weight"], ["turned"], **({} if axes is None else {"perm": axes}))
    out = helper.make_node("Add", ["turned", "zero"], ["out"])
    zero, held = np.zeros((), np.float32), numpy_helper.from_array(weight, "weight")
    value = helper.make_tensor_value_info("out", TensorProto.FLOAT, weight.transpose(axes).shape)
    given = helper.make_tensor_value_info("zero", TensorProto.FLOAT, ())
    opset = helper.make_opsetid("", 17)
    graph = helper.make_graph([node, out], "weights", [given], [value], [held])
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "model.onnx")
    _transpose_weights(tmp_path / "model.onnx")
    assert [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node] == ["Add"]
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"zero": zero})[0], weight.transpose(axes))


@pytest.mark.parametrize("affine", [False, True])
def test_a_fixed_norm_is_batch_norm_after_training(affine: bool) -> None:
    norm = nn.BatchNorm1d(3, affine=affine)
    norm(3 + 2 * torch.randn(50, 3))
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    for values in (torch.randn(7, 3), torch.randn(2, 3, 5)):
        torch.testing.assert_close(_FixedNorm(norm.eval())(values), norm(values))


def test_features_that_are_no_log_mels_are_refused(teachers, graph: Path, prepared, tmp_path: Path) -> None:
    shutil.copytree(prepared.features, tmp_path / "features")
    description = read_json(prepared.features / "cmvn.json")
    write_json(tmp_path / "features/cmvn.json", {**description, "extractor": "kaldi-mfcc"})
    (tmp_path / "features/stage.json").unlink()
    with pytest.raises(UserError, match="computes log-mels from samples"):
        main(Config(teachers / "seed-0", graph, tmp_path / "features", tmp_path / "out"))
