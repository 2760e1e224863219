"""Extraction of features, normalisation, bad recordings, resuming."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from front_ends import front_end
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.corpora.parts import Options, Part
from asr_kd.corpora.splits import write_split
from asr_kd.features.__main__ import main
from asr_kd.features.audio import read_audio
from asr_kd.features.config import Config
from asr_kd.features.extraction import CHUNK_SIZE, extract_corpus
from asr_kd.features.extractors import extract, raw_features
from asr_kd.features.front_end import FrontEnd
from asr_kd.features.normalise import FLOOR, Normaliser, Speech, find_speech, quiet_frames, speech_sums

RATE = 16000
FRONT_END = front_end()


def add_part(folder: Path, speakers: dict[str, int], seconds: float = 0.6) -> None:
    """Write utterances of noise whose colour and level depend on the speaker."""
    for speaker, count in speakers.items():
        generator = np.random.default_rng(int(speaker))
        chapter = folder / speaker / "1"
        chapter.mkdir(parents=True)
        lines = []
        for i in range(count):
            samples = generator.normal(0, 0.02 * (1 + int(speaker) % 5), int(RATE * seconds * (1 + i % 2)))
            samples[1:] += 0.1 * (int(speaker) % 7) * samples[:-1]
            soundfile.write(chapter / f"{speaker}-1-{i:04d}.flac", samples, RATE)
            lines.append(f"{speaker}-1-{i:04d} HELLO\n")
        (chapter / f"{speaker}-1.trans.txt").write_text("".join(lines))


def prepare(root: Path, **parts: dict[str, int]) -> Path:
    """Write manifests of the given splits to ROOT/data."""
    with ThreadPoolExecutor(1) as executor:
        for split, speakers in parts.items():
            add_part(root / "corpus" / split, speakers)
            write_split(root / "data", split, [Part(root / "corpus" / split)], Options(), executor)
    return root / "data"


def run(data: Path, out: Path, **options: Any) -> dict[str, dict[str, int]]:
    with ThreadPoolExecutor(1) as executor:
        return extract_corpus(Config(data, out, **options), executor)


def cuts_of(out: Path, split: str) -> list[MonoCut]:
    return list(CutSet.from_file(out / f"cuts_{split}.jsonl.gz"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("features")
    data = prepare(root, train={"1": 3, "2": 4}, test={"3": 2})
    run(data, root / "out")
    return root / "out"


def test_extract_agrees_with_the_stage(made: Path) -> None:
    for cut in cuts_of(made, "train") + cuts_of(made, "test"):
        stored = raw_features(cut)
        assert cut.id == cut.supervisions[0].id
        assert stored.shape == (cut.num_frames, 40) and stored.dtype == np.float32
        assert cut.num_frames == round(cut.duration / 0.01)
        assert np.abs(extract(FRONT_END, cut.load_audio()[0]) - stored).max() < 1e-4
        assert np.abs(extract(FRONT_END, read_audio(cut.recording.sources[0].source, RATE)) - stored).max() < 1e-4


def test_features_match_those_of_kaldi(made: Path) -> None:
    from torch import from_numpy
    from torchaudio.compliance.kaldi import fbank

    samples = cuts_of(made, "train")[0].load_audio()
    expected = fbank(
        from_numpy(samples) * (1 << 15), num_mel_bins=40, low_freq=20, high_freq=7800, dither=0.0, snip_edges=False,
        sample_frequency=RATE,
    ).numpy()  # fmt: skip
    assert np.abs(extract(FRONT_END, samples[0]) - expected).max() < 1e-3


@settings(max_examples=30, deadline=None)
@given(st.integers(1600, 20000))
def test_number_of_frames(samples: int) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, samples).astype(np.float32)
    assert extract(FRONT_END, noise).shape == ((samples + 80) // 160, 40)


def speech(raw: np.ndarray) -> Speech:
    return find_speech(FRONT_END, raw)


def speech_frames(raw: np.ndarray, features: np.ndarray) -> np.ndarray:
    return features[speech(raw).frames]


def test_normalised_by_the_speech_of_the_utterance(made: Path) -> None:
    normaliser = Normaliser.load(made)
    for cut in cuts_of(made, "train") + cuts_of(made, "test"):
        features = normaliser(cut)
        assert features.dtype == np.float32 and features.flags.c_contiguous and features.shape == (cut.num_frames, 40)
        raw = raw_features(cut)
        assert np.abs(normaliser.normalise(raw, "nobody") - features).max() == 0
        expected = ((raw - raw[speech(raw).frames].mean(0)) / raw[speech(raw).frames].std(0)).clip(FLOOR)
        assert np.abs(speech_frames(raw, features) - speech_frames(raw, expected)).max() < 1e-3
    for flat in (np.ones((5, 40), np.float32), np.full((5, 40), -16, np.float32)):
        assert np.isfinite(normaliser.normalise(flat)).all()
    assert normaliser.normalise(np.zeros((0, 40), np.float32)).shape == (0, 40)


def test_known_speakers_count_as_much_as_300_frames_and_their_mean_as_100(tmp_path: Path) -> None:
    data = prepare(tmp_path, train={"1": 3, "2": 4}, test={"3": 2})
    run(data, tmp_path / "out", normalise="speaker")
    normaliser = Normaliser.load(tmp_path / "out")
    cuts = cuts_of(tmp_path / "out", "train")
    by_speaker = [
        np.concatenate([raw[speech(raw).frames] - speech(raw).level for raw in map(raw_features, group)])
        for group in ([c for c in cuts if c.supervisions[0].speaker == name] for name in "12")
    ]
    raw = raw_features(cuts[0])
    level = speech(raw).level
    own = raw[speech(raw).frames] - level
    weight = len(own) / (len(own) + 300)
    for name, frames in zip("12", by_speaker, strict=True):
        moments = [weight * np.mean(own**k, 0) + (1 - weight) * np.mean(frames.astype(float) ** k, 0) for k in (1, 2)]
        expected = (raw - level - moments[0]) / np.sqrt(moments[1] - moments[0] ** 2)
        features = normaliser.normalise(raw, name)
        assert np.abs(speech_frames(raw, features) - speech_frames(raw, expected.clip(FLOOR))).max() < 1e-2
    weight = len(own) / (len(own) + 100)
    usual = [np.mean([sums[k] / sums[0] for sums in normaliser.speakers.values()], 0) for k in (1, 2)]
    moments = [weight * np.mean(own**k, 0) + (1 - weight) * usual[k - 1] for k in (1, 2)]
    expected = (raw - level - moments[0]) / np.sqrt(moments[1] - moments[0] ** 2)
    for unknown in (None, "4"):
        features = normaliser.normalise(raw, unknown)
        assert np.abs(speech_frames(raw, features) - speech_frames(raw, expected.clip(FLOOR))).max() < 1e-2


def spoken(generator: np.random.Generator, seconds: float = 3.0, rate: int = RATE) -> np.ndarray:
    """Syllables of a buzzing voice in noise, 20 dB below, with a margin of noise."""
    time_axis = np.arange(int(rate * seconds)) / rate
    pitch = 2 * np.pi * (120 * time_axis + 3 * np.sin(2 * np.pi * 0.7 * time_axis))
    voice = sum(np.sin(k * pitch) / k for k in range(1, 30)) * np.clip(np.sin(2 * np.pi * 2.2 * time_axis), 0, None)
    voice[: rate // 3] = voice[-rate // 3 :] = 0
    return (0.1 * voice + 0.005 * generator.standard_normal(len(voice))).astype(np.float32)


#: Front ends whose filters are known, so that speech is found in their features.
KNOWN = (
    front_end(), front_end(sampling_rate=8000, num_filters=64), front_end(kind="mfcc", num_filters=23),
    front_end(kind="mfcc", num_ceps=40),
)  # fmt: skip


@pytest.mark.parametrize("known", KNOWN, ids=str)
@pytest.mark.parametrize("seconds", [0.3, 2.0, 30.0])
@pytest.mark.parametrize("noise", [0.0, 1e-3])
def test_what_surrounds_speech_does_not_move_it(known: FrontEnd, seconds: float, noise: float) -> None:
    generator, rate = np.random.default_rng(0), known.sampling_rate
    samples, normaliser = spoken(generator, rate=rate), Normaliser(known)
    before, after = (noise * generator.standard_normal(int(rate * seconds)).astype(np.float32) for _ in range(2))
    features = normaliser.normalise(extract(known, samples))
    longer = normaliser.normalise(extract(known, np.concatenate([before, samples, after])))
    shift = round(seconds * 100)
    inner = longer[shift : shift + len(features)][2:-2]  # but for the windows that reach over the edges
    moved = np.abs(inner - features[2:-2])
    most = 0.02 if known == FRONT_END else 0.05
    assert moved.max() < most if seconds < 30 else moved.mean() < 0.3  # longer ones are normalised in segments
    far = max(shift - 31, 0)
    assert quiet_frames(longer)[:far].all() and quiet_frames(longer)[len(longer) - far :].all()
    assert not quiet_frames(features)[30:-30].any()


@pytest.mark.parametrize("known", KNOWN, ids=str)
@pytest.mark.parametrize("gain", [1e-3, 1e-2, 0.3, 30.0])
def test_the_level_does_not_move_features(known: FrontEnd, gain: float) -> None:
    samples, normaliser = spoken(np.random.default_rng(0), rate=known.sampling_rate), Normaliser(known)
    features, other = (normaliser.normalise(extract(known, np.float32(g) * samples)) for g in (1, gain))
    assert np.abs(features - other).max() < 1e-3


@pytest.mark.parametrize("known", KNOWN, ids=str)
def test_the_level_does_not_move_what_is_known_of_a_speaker(known: FrontEnd) -> None:
    raw, louder = (extract(known, g * spoken(np.random.default_rng(0), rate=known.sampling_rate)) for g in (1, 10))
    sums = [speech_sums(known, features, find_speech(known, features)) for features in (raw, louder)]
    np.testing.assert_allclose(sums[0], sums[1], rtol=1e-3, atol=0.1)


def test_a_long_recording_is_normalised_as_its_parts() -> None:
    generator, normaliser = np.random.default_rng(0), Normaliser(FRONT_END)
    parts = [np.float32(generator.uniform(0.1, 1)) * spoken(generator) for _ in range(20)]
    joined = normaliser.normalise(extract(FRONT_END, np.concatenate(parts)))
    one_by_one = np.concatenate([normaliser.normalise(extract(FRONT_END, part)) for part in parts])
    assert np.abs(joined - one_by_one).mean() < 0.3
    silence = np.zeros(RATE * 30, np.float32)
    with_silence = normaliser.normalise(extract(FRONT_END, np.concatenate([*parts[:10], silence, *parts[10:]])))
    assert quiet_frames(with_silence[3100:5900]).all()
    assert np.abs(with_silence[-2800:] - joined[-2800:]).mean() < 0.1


def test_bad_recordings_are_skipped_counted_and_listed(tmp_path: Path) -> None:
    data = prepare(tmp_path, train={"1": 10})
    folder = tmp_path / "corpus" / "train" / "1" / "1"
    path = [folder / f"1-1-{i:04d}.flac" for i in range(10)]
    content = bytearray(path[0].read_bytes())
    content[len(content) // 3 : len(content) // 2] = b"\0" * (len(content) // 2 - len(content) // 3)
    path[0].write_bytes(content)
    path[1].write_bytes(path[1].read_bytes()[:2000])
    holes = np.full(int(RATE * 0.6), np.nan, np.float32)
    soundfile.write(path[2], holes, RATE, format="WAV", subtype="FLOAT")
    soundfile.write(path[3], np.ones(5000) * 0.1, RATE)  # shorter than its manifest says
    soundfile.write(path[4], np.zeros(int(RATE * 0.6)), RATE)
    path[5].unlink()
    for number, value in ((8, np.inf), (9, 1e20)):
        samples = np.full(int(RATE * 0.6 * (1 + number % 2)), 0.1, np.float32)
        samples[-1] = value
        soundfile.write(path[number], samples, RATE, format="WAV", subtype="FLOAT")
    figures = run(data, tmp_path / "out")
    assert figures["train"]["cuts"] == 2 and figures["train"]["skipped"] == 8
    lines = (tmp_path / "out" / "skipped_train.tsv").read_text().splitlines()
    reasons = [line.split("\t")[1] for line in lines]
    expected = ("damaged", "", "NaN", "", "digital silence", "damaged", "infinite", "1e+20 where 1.0 is full scale")
    for reason, part in zip(reasons, expected, strict=True):
        assert part in reason
    assert [cut.id for cut in cuts_of(tmp_path / "out", "train")] == ["1-1-0006", "1-1-0007"]


def test_short_recordings_and_empty_splits(tmp_path: Path) -> None:
    add_part(tmp_path / "corpus" / "train", {"1": 1}, seconds=0.05)
    with ThreadPoolExecutor(1) as executor:
        write_split(tmp_path / "data", "train", [Part(tmp_path / "corpus" / "train")], Options(), executor)
    with pytest.raises(UserError, match=r"all 1 utterances were skipped.*shorter than 0.1 s"):
        run(tmp_path / "data", tmp_path / "out")
    with pytest.raises(UserError, match="cuts_train"):
        run(tmp_path, tmp_path / "out")


def test_speed_perturbation_of_train_only(tmp_path: Path) -> None:
    data = prepare(tmp_path, train={"1": 2}, test={"3": 1})
    run(data, tmp_path / "out", speed_perturb=(0.9, 1.1))
    cuts = {cut.id: cut for cut in cuts_of(tmp_path / "out", "train")}
    assert list(cuts) == [f"1-1-000{i}{suffix}" for suffix in ("", "_sp0.9", "_sp1.1") for i in range(2)]
    slow = cuts["1-1-0000_sp0.9"]
    assert slow.supervisions[0].speaker == "1_sp0.9" and slow.supervisions[0].id == slow.id
    assert raw_features(slow).shape == (slow.num_frames, 40) == (67, 40)
    assert len(cuts_of(tmp_path / "out", "test")) == 1
    with pytest.raises(UserError, match="--speed-perturb"):
        main(Config(data, tmp_path / "other", speed_perturb=(1.0,)))


def test_a_killed_run_resumes_with_the_same_result(tmp_path: Path) -> None:
    data = prepare(tmp_path, train={str(speaker): 50 for speaker in range(1, 10)})
    folders = ["--data", str(data), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "asr_kd.features", *folders, "--jobs", "1"]
    first = tmp_path / "out" / "chunks" / "train" / "000000.json"
    process = subprocess.Popen(command, start_new_session=True)
    while not first.exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = tmp_path / "out" / "storage" / "train" / "000000"
    stamps = {path: path.stat().st_mtime_ns for path in kept.rglob("*.npy")}
    assert len(stamps) == CHUNK_SIZE
    run(data, tmp_path / "out")
    assert stamps == {path: path.stat().st_mtime_ns for path in kept.rglob("*.npy")}  # reused
    run(data, tmp_path / "other")
    for name in ("cmvn_speakers.npy", "cmvn.json", "skipped_train.tsv"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    assert [c.id for c in cuts_of(tmp_path / "out", "train")] == [c.id for c in cuts_of(tmp_path / "other", "train")]
    assert not (tmp_path / "out" / "chunks").exists()


def test_missing_or_damaged_features_are_named(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cmvn.json is missing"):
        Normaliser.load(tmp_path)
    cut = cuts_of(made, "test")[0]
    cut.features.storage_path = str(tmp_path)
    with pytest.raises(UserError, match=f"the features of {cut.id} cannot be read"):
        raw_features(cut)


def test_read_audio(tmp_path: Path) -> None:
    time_axis = np.arange(48000) / 48000
    tone = 0.5 * np.sin(2 * np.pi * 440 * time_axis)
    soundfile.write(tmp_path / "stereo.wav", np.stack([tone, tone], 1), 48000)
    samples = read_audio(tmp_path / "stereo.wav", RATE)
    assert samples.shape == (16000,) and samples.dtype == np.float32
    assert np.abs(samples - tone[::3])[200:-200].max() < 1e-2
    soundfile.write(tmp_path / "slow.wav", tone, 8000)
    assert len(read_audio(tmp_path / "slow.wav", RATE)) == 96000
    soundfile.write(tmp_path / "nan.wav", np.full(10, np.nan), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), RATE)
    (tmp_path / "text.wav").write_text("hello")
    for name, message in (("nan", "NaN"), ("empty", "no samples"), ("text", "cannot be read"), ("none", "cannot be")):
        with pytest.raises(UserError, match=message):
            read_audio(tmp_path / f"{name}.wav", RATE)


def test_strange_files_are_refused_and_channels_that_cancel_are_not_mixed(tmp_path: Path, caplog) -> None:
    noise = np.random.default_rng(0).standard_normal(48000)
    samples = (3000 * noise).astype("<i2").tobytes()
    (tmp_path / "a.raw").write_bytes(samples)
    for name, rate in (("slow", 1), ("fast", 1_000_000)):
        header = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
        data = b"data" + struct.pack("<I", len(samples)) + samples
        (tmp_path / f"{name}.wav").write_bytes(b"RIFF" + struct.pack("<I", 36 + len(samples)) + header + data)
    announced = (tmp_path / "slow.wav").read_bytes().replace(struct.pack("<I", 1), struct.pack("<I", RATE), 1)
    (tmp_path / "announced.wav").write_bytes(announced.replace(struct.pack("<I", len(samples)), b"\xff\xff\xff\x7f"))
    for name, message in (("a.raw", "cannot be read"), ("slow.wav", "rate of 1 Hz"), ("fast.wav", "1000000 Hz")):
        with pytest.raises(UserError, match=message):
            read_audio(tmp_path / name, RATE)
    assert len(read_audio(tmp_path / "announced.wav", RATE)) == 48000, "2 GB are announced"

    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)
    soundfile.write(tmp_path / "cancelling.wav", np.stack([tone, -1.01 * tone], 1), RATE, "FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "cancelling.wav", RATE), -1.01 * tone, atol=1e-6)
    assert caplog.text.count("cancel each other") == 1
    soundfile.write(tmp_path / "one-sided.wav", np.stack([tone, 0 * tone], 1), RATE, "FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "one-sided.wav", RATE), 0.5 * tone, atol=1e-6)
    assert caplog.text.count("cancel each other") == 1


def test_extract_refuses_unusable_samples() -> None:
    for samples, message in (
        (np.ones(100), "shorter"), (np.zeros(RATE), "silence"), (np.full(RATE, np.nan), "NaN"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            extract(FRONT_END, samples)
