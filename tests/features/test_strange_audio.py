"""Audio of every kind that strangers hand in: read, or refused with a sentence."""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from front_ends import front_end
from scipy.signal import resample_poly

from asr_kd.common.errors import UserError
from asr_kd.features import audio, extractors
from asr_kd.features.audio import read_audio, sample_fault
from asr_kd.features.extractors import compute_features

RATE = 16000
FRONT_END = front_end()
TONE = (0.3 * np.sin(2 * np.pi * 300 * np.arange(RATE) / RATE)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.wav", {"subtype": "PCM_U8"}), ("a.wav", {"subtype": "PCM_24"}), ("a.wav", {"subtype": "DOUBLE"}),
        ("a.wav", {"format": "WAVEX", "subtype": "PCM_24"}), ("a.wav", {"subtype": "ULAW"}),
        ("a.wav", {"subtype": "IMA_ADPCM"}), ("a.flac", {}), ("a.mp3", {}), ("a.ogg", {"subtype": "VORBIS"}),
        ("a.ogg", {"subtype": "OPUS"}), ("a.aiff", {}), ("a.caf", {}), ("a.w64", {}), ("a.txt", {"format": "WAV"}),
        ("a\udce9\n\t.wav", {}),
    ],
)  # fmt: skip
def test_every_kind_of_file_is_read(name: str, options: dict[str, str], tmp_path: Path) -> None:
    for channels in (1, 2):
        with open(tmp_path / name, "wb") as file:
            soundfile.write(
                file, np.tile(TONE[:, None], channels), RATE, **{"format": Path(name).suffix[1:], **options}
            )
        samples = read_audio(tmp_path / name, RATE)
        assert samples.dtype == np.float32 and abs(len(samples) - RATE) <= 1024
        assert np.abs(samples[2000:14000]).max() == pytest.approx(0.3, abs=0.03)


def test_files_that_are_no_audio_are_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", TONE, RATE)
    soundfile.write(tmp_path / "good.flac", TONE, RATE)
    wav, flac = ((tmp_path / f"good.{kind}").read_bytes() for kind in ("wav", "flac"))
    flipped = bytearray(flac)
    flipped[len(flac) // 2] ^= 16
    contents = {
        "text.wav": b"hello\n" * 100, "empty.wav": b"", "header.wav": wav[:44], "half-a-header.wav": wav[:20],
        "cut.flac": flac[: len(flac) // 2], "flipped.flac": bytes(flipped), "a.raw": wav[44:],
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    os.mkfifo(tmp_path / "pipe.wav")
    paths = [*(tmp_path / n for n in (*contents, "folder.wav", "loop.wav", "pipe.wav", "missing.wav")), "/dev/zero"]
    if os.geteuid():  # root may read everything
        (tmp_path / "secret.wav").write_bytes(wav)
        (tmp_path / "secret.wav").chmod(0)
        paths.append(tmp_path / "secret.wav")
    started = time.monotonic()
    for path in paths:
        with pytest.raises(UserError, match=r": (give a|record it again)") as caught:
            read_audio(path, RATE)
        assert str(caught.value).startswith(str(path))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_samples_that_are_no_numbers_are_refused_wherever_they_are(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 1000)
    samples = np.stack([TONE, TONE], 1).astype(np.float64)
    samples[-1, 1] = value
    soundfile.write(tmp_path / "a.wav", samples, RATE, subtype="DOUBLE")
    with pytest.raises(UserError, match="NaN or infinite"):
        read_audio(tmp_path / "a.wav", RATE)


def test_faults_of_samples() -> None:
    for samples, fault in (
        (TONE, None), (32768 * TONE, None), (1e-6 * TONE, None), (TONE[:1], "shorter"), (TONE[:0], "shorter"),
        (0 * TONE, "silence"), (1e20 * TONE, "full scale"), (np.nan * TONE, "NaN"),
    ):  # fmt: skip
        found = sample_fault(samples, RATE)
        assert found == fault or fault in found
        if fault is None:
            assert np.isfinite(compute_features(FRONT_END, samples)).all()


def test_many_channels_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (4000, 64)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", noise, RATE, subtype="FLOAT")
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 64 * 100)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE), noise.mean(1))
    noise[:, 1:] = -noise[:, :1] / 63  # cancels the first
    soundfile.write(tmp_path / "a.wav", noise, RATE, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "a.wav", RATE), noise[:, 0])
    assert caplog.text.count("cancel each other") == 1


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16001, 44100, 48000, 192000])
def test_blocks_are_resampled_as_the_whole(rate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 3 * rate + 5).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, rate, subtype="FLOAT")
    monkeypatch.setattr(audio, "BLOCK_SAMPLES", 3001)
    divisor = np.gcd(rate, RATE)
    whole = resample_poly(samples, RATE // divisor, rate // divisor)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav", RATE), whole, atol=1e-6)


def test_features_of_chunks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    for known in (FRONT_END, front_end(sampling_rate=8000, frame_length=0.064), front_end(kind="mfcc", num_ceps=40)):
        rate = known.sampling_rate
        samples = np.random.default_rng(2).normal(0, 0.1, 2 * rate + rate // 210).astype(np.float32)
        monkeypatch.setattr(extractors, "CHUNK_FRAMES", 1000)
        whole = compute_features(known, samples)
        assert whole.shape == (200, 40)
        for frames in (1, 7, 100, 199, 200):
            monkeypatch.setattr(extractors, "CHUNK_FRAMES", frames)
            np.testing.assert_allclose(compute_features(known, samples), whole, atol=1e-4)


def test_length_is_bounded_and_headers_are_not_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    soundfile.write(tmp_path / "a.wav", TONE, RATE)
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(content[:-RATE])
    soundfile.write(tmp_path / "a.mp3", np.tile(TONE, 3), RATE)
    mp3 = (tmp_path / "a.mp3").read_bytes()
    (tmp_path / "cut.mp3").write_bytes(mp3[: len(mp3) // 2])
    (tmp_path / "2GB.wav").write_bytes(content[:40] + struct.pack("<I", 2**31 - 40) + content[44:])
    assert len(read_audio(tmp_path / "a.wav", RATE)) == RATE and not caplog.records
    assert len(read_audio(tmp_path / "2GB.wav", RATE)) == RATE
    assert len(read_audio(tmp_path / "cut.wav", RATE)) == RATE // 2
    assert 0.5 * RATE < len(read_audio(tmp_path / "cut.mp3", RATE)) < 2 * RATE
    assert [name for name in ("2GB.wav", "cut.wav", "cut.mp3") if name in caplog.text] == [
        "2GB.wav",
        "cut.wav",
        "cut.mp3",
    ]
    monkeypatch.setattr(audio, "MAX_HOURS", 0.9 / 3600)
    with pytest.raises(UserError, match=r"longer than 0.9 s"):
        read_audio(tmp_path / "a.wav", RATE)
