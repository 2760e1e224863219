"""Decoding of audio files: strange ones, long ones, and what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("kaldifst")
pytest.importorskip("kaldi_hmm_gmm")
import soundfile
from decode_toy import PDFS, WORDS, aborting_python
from lhotse import CutSet

from asr_kd.common.errors import UserError
from asr_kd.common.storage import write_json
from asr_kd.decode import pipeline
from asr_kd.decode.__main__ import main
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.client import Search
from asr_kd.decode.config import Config
from asr_kd.decode.files import decode_files
from asr_kd.decode.pipeline import Decoder
from asr_kd.features import audio
from asr_kd.features.front_end import FrontEnd
from asr_kd.models import scorer

RATE = 16000
NAMES = {f"W{i:02d}" for i in range(1, WORDS + 1)}


def noise(seconds: float, seed: int = 0, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=(int(RATE * seconds), channels))


def decode(toy: SimpleNamespace, search: Search, files: list[Path], **options: Any) -> int:
    config = Config((toy.model,), toy.graph, toy.features, tuple(files), **options)
    return decode_files(config, Decoder(load_scorer([toy.model], toy.features, PDFS), [search], config.batch))


def test_files_for_features_that_were_made_elsewhere_are_refused(toy: SimpleNamespace, tmp_path: Path) -> None:
    given = FrontEnd("wav2vec", 24, 16000, None, {}, "utterance")
    write_json(tmp_path / "cmvn.json", {**given.to_json(), "speakers": []})
    with pytest.raises(UserError, match="made elsewhere, so those of audio files cannot be computed: decode splits"):
        main(Config((toy.model,), toy.graph, tmp_path, (tmp_path / "a.wav",)))


def test_the_command_prints_words_and_counts_failures(toy: SimpleNamespace, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "stereo.wav", noise(1, channels=2), 8000)
    soundfile.write(tmp_path / "mono.flac", noise(1), RATE)
    (tmp_path / "bad.wav").write_bytes(b"RIFF....WAVE")
    (tmp_path / "headerless.raw").write_bytes(bytes(3200))
    os.mkfifo(tmp_path / "pipe.wav")
    odd = os.fsencode(tmp_path) + b"/tab\t\xe9.flac"
    Path(os.fsdecode(odd)).write_bytes((tmp_path / "mono.flac").read_bytes())
    names = ("headerless.raw", "stereo.wav", "bad.wav", "mono.flac", "pipe.wav", "mono.flac")
    command = [
        sys.executable, "-m", "asr_kd.decode", "--model", toy.model, "--graph", toy.graph,
        "--k2-python", toy.python, "--features", toy.features, *(tmp_path / name for name in names), odd,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 3
    lines = [line.split(b"\t") for line in done.stdout.splitlines()]
    printed = [line[0].split(b"/")[-1] for line in lines]
    assert printed == [b"stereo.wav", b"mono.flac", b"mono.flac", b"tab\\t\xe9.flac"]
    assert set(b" ".join(line[1] for line in lines).decode().split()) <= NAMES
    errors = done.stderr.decode()
    assert all(name in errors for name in ("bad.wav", "headerless.raw", "pipe.wav is a folder, pipe or device"))
    assert "3 of 7 files could not be decoded" in errors and "Traceback" not in errors


def test_a_channel_can_be_chosen(
    toy: SimpleNamespace, search: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = noise(1, channels=2)
    for name, samples in (("both", both), ("right", both[:, 1])):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
    printed = []
    for name, channel in (("both", 2), ("right", 0)):
        assert decode(toy, search, [tmp_path / f"{name}.wav"], channel=channel) == 0
        printed.append(capsys.readouterr().out.split("\t")[1])
    assert printed[0] == printed[1]
    assert decode(toy, search, [tmp_path / "both.wav"], channel=3) == 1
    assert "has no channel 3" in capsys.readouterr().err


def test_json_lines(toy: SimpleNamespace, search: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [
        tmp_path / name for name in ("a.wav", "b\udce9\n\t\\.wav", "zeros.wav", "one.wav", "short.wav", "none.wav")
    ]
    for path, samples in zip(files, (noise(1), noise(0.5), noise(1) * 0, noise(1)[:1], noise(0.11)), strict=False):
        with open(path, "wb") as file:
            soundfile.write(file, samples, RATE, format="WAV")
    assert decode(toy, search, files, format="jsonl", batch=2) == 3
    output = capsys.readouterr()
    records = [json.loads(line) for line in output.out.splitlines()]
    assert [record["file"] for record in records] == [str(path) for path in files]
    assert [record["seconds"] for record in records] == [1.0, 0.5, None, None, 0.11, None]
    assert [bool(record["error"]) for record in records] == [record["words"] is None for record in records]
    assert [record["words"] is None for record in records] == [False, False, True, True, False, True]
    reasons = [record["error"] or "" for record in records]
    assert "silence" in reasons[2] and "shorter" in reasons[3] and "No such file" in reasons[5]
    assert output.err.splitlines()[-1] == "3 of 6 files could not be decoded"

    files[1] = files[1].rename(tmp_path / "b\n\t\\.wav")
    assert decode(toy, search, files[:2]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines] == [record["words"] for record in records[:2]]
    assert lines[1][0].endswith("b\\n\\t\\\\.wav")


def test_a_file_that_aborts_the_search_fails_alone(
    toy: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [tmp_path / f"{number}.wav" for number in range(3)]
    for number, path in enumerate(files):
        soundfile.write(path, noise(0.77 if number == 1 else 0.5, number), RATE)
    search = Search(toy.prepared, aborting_python(tmp_path, toy.python, 77), PDFS)
    assert decode(toy, search, files, format="jsonl") == 1
    search.close()
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["error"] is None for record in records] == [True, False, True]
    assert "SIGABRT" in records[1]["error"]


class Recorded(Search):
    """The search, which notes how many frames each batch has when it is padded."""

    def __call__(self, scores, options):  # type: ignore[no-untyped-def]
        self.batches = [*getattr(self, "batches", []), len(scores) * max((len(m) for m in scores), default=0)]
        return super().__call__(scores, options)


def test_long_recordings_are_cut_at_pauses_and_batches_are_bounded(
    toy: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    pause = 0.001 * noise(0.4)
    parts = [noise(1.3, 1), pause, noise(1.2, 2), pause, noise(0.9, 3)]
    files = [tmp_path / name for name in ("long.wav", "a.wav", "bad.wav", "b.wav")]
    for path, samples in zip(files, (np.concatenate(parts), noise(0.9, 4), noise(0), noise(0.9, 5)), strict=True):
        soundfile.write(path, samples, RATE)
    monkeypatch.setattr(pipeline, "MAX_BATCH_FRAMES", 200)
    search = Recorded(toy.prepared, toy.python, PDFS)
    assert decode(toy, search, files, format="jsonl") == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(record["file"]).name for record in records] == ["long.wav", "a.wav", "bad.wav", "b.wav"]
    assert records[0]["seconds"] == 4.2 and set(records[0]["words"].split()) <= NAMES
    assert "long.wav: 4 s are decoded in 3 pieces" in caplog.text
    assert len(search.batches) >= 4 and max(search.batches) <= 200
    first, second = search.batches[:2]
    assert 130 <= first <= 170 and 290 <= first + second <= 330, "cut within the pauses"

    monkeypatch.setattr(pipeline, "MAX_BATCH_FRAMES", 12000)
    search.batches = []
    assert decode(toy, search, files, format="jsonl") == 1
    assert len(search.batches) == 1
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert again[1:] == records[1:]
    search.close()


def test_scores_of_pieces_and_chunks_are_those_of_the_whole(
    toy: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = max(CutSet.from_file(toy.features / "cuts_test.jsonl.gz"), key=lambda cut: cut.num_frames)
    networks = load_scorer([toy.model, toy.model], toy.features, PDFS)
    whole, features = networks(cut), networks.features(cut)
    assert len(whole) == cut.num_frames > 20
    for chunk in (1, 7, 6000):
        monkeypatch.setattr(scorer, "CHUNK_FRAMES", chunk)
        np.testing.assert_allclose(networks(cut), whole, atol=1e-5)
        np.testing.assert_allclose(networks.scores(features, 5, 18), whole[5:18], atol=1e-5)


def test_a_file_that_is_damaged_after_pieces_of_it_fails(
    toy: SimpleNamespace, search: Search, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    samples = noise(20)[:, 0]
    soundfile.write(tmp_path / "a.wav", samples[:RATE], RATE)
    samples[-100] = np.nan
    soundfile.write(tmp_path / "long.wav", samples, RATE, subtype="FLOAT")
    monkeypatch.setattr(pipeline, "MAX_BATCH_FRAMES", 200)
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 5 * RATE)
    assert decode(toy, search, [tmp_path / "long.wav", tmp_path / "a.wav"], format="jsonl") == 1
    long, short = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert long["words"] is None and long["seconds"] is None and "NaN or infinite samples" in long["error"]
    assert short["seconds"] == 1 and short["error"] is None
