"""Features of segments, channels and rates as corpora have them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from front_ends import front_end
from lhotse import CutSet, NumpyFilesWriter

from asr_kd.corpora.parts import Options, Part
from asr_kd.corpora.splits import write_split
from asr_kd.features.config import Config
from asr_kd.features.extraction import extract_corpus
from asr_kd.features.extractors import extract, raw_features


def features(root: Path, spec: str, channel: int | None = None, **options: Any) -> dict[str, np.ndarray]:
    """The raw features of all utterances of a part, which is train, by id."""
    with ThreadPoolExecutor(1) as executor:
        write_split(root / "data", "train", [Part.parse(root, spec)], Options(channel=channel), executor)
        extract_corpus(Config(root / "data", root / "features", **options), executor)
    assert not (root / "features" / "skipped_train.tsv").read_text()
    return {cut.id: raw_features(cut) for cut in CutSet.from_file(root / "features" / "cuts_train.jsonl.gz")}


def test_segments_and_channels_have_the_features_of_their_samples(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, (160000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "long.flac", samples, 16000)
    samples, _ = soundfile.read(tmp_path / "long.flac", dtype="float32")
    (tmp_path / "wav.scp").write_text("long long.flac\n")
    (tmp_path / "segments").write_text("../a/b long 1.5 3\na long 7.00005 -1\na% long 3 4.0\n")
    (tmp_path / "text").write_text("a A\n../a/b B\na% C\n")
    (tmp_path / "utt2spk").write_text("a s\n../a/b s\na% t\n")
    made = features(tmp_path, ".", channel=1)
    for name, start, end in (("a", 112001, 160000), ("../a/b", 24000, 48000), ("a%", 48000, 64000)):
        assert np.abs(made[name] - extract(front_end(), samples[start:end, 1])).max() < 1e-5
    assert {
        path.parent.parent.parent for path in (tmp_path / "features").rglob("*.npy") if "cmvn" not in path.name
    } == {tmp_path / "features" / "storage" / "train"}


@pytest.mark.parametrize("rate", [8000, 11025, 44100, 48000])
def test_any_rate_and_length_is_resampled(tmp_path: Path, rate: int) -> None:
    lengths = [rate + 1, rate + rate // 3, 2 * rate - 7, rate // 5]
    (tmp_path / "s").mkdir()
    for number, length in enumerate(lengths):
        seconds = np.arange(length) / rate
        soundfile.write(tmp_path / "s" / f"{number}.wav", 0.3 * np.sin(2 * np.pi * 1000 * seconds), rate)
    (tmp_path / "t.trans.txt").write_text("".join(f"{number} TEXT\n" for number in range(4)))
    made = features(tmp_path, ".", speed_perturb=(0.9,))
    at_16k = extract(front_end(), 0.3 * np.sin(2 * np.pi * 1000 * np.arange(32000) / 16000).astype(np.float32))
    for number, length in enumerate(lengths):
        mels = made[str(number)]
        assert abs(len(mels) - 100 * length / rate) <= 0.51
        assert np.abs(mels[5:-5].max(1) - at_16k[5 : len(mels) - 5].max(1)).max() < 0.1
        assert len(made[f"{number}_sp0.9"]) == pytest.approx(len(mels) / 0.9, abs=1)


@pytest.mark.parametrize("old", [8000, 11025, 16000, 44100])
@pytest.mark.parametrize("new", [8000, 16000])
def test_frames_of_features_and_senones_agree(tmp_path: Path, old: int, new: int) -> None:
    draw = np.random.default_rng(old)
    soundfile.write(tmp_path / "long.flac", draw.normal(0, 0.1, 20 * old + 7), old)
    starts = np.arange(19) + draw.uniform(0, 0.01, 19)
    lengths = 0.01 * draw.integers(20, 90, 19) + 0.005 + draw.uniform(-3e-5, 3e-5, 19)  # about half a frame
    spoken = [
        (f"u{n:02d}", start, start + length) for n, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    spoken.append(("u19", 19.12345, -1))  # to the end of the recording
    (tmp_path / "wav.scp").write_text("long long.flac\n")
    (tmp_path / "segments").write_text("".join(f"{name} long {start} {end}\n" for name, start, end in spoken))
    for file, value in (("text", "A"), ("utt2spk", "s")):
        (tmp_path / file).write_text("".join(f"{name} {value}\n" for name, *_ in spoken))
    features(tmp_path, ".", sampling_rate=new)
    with NumpyFilesWriter(tmp_path / "arrays") as writer:
        for cut in CutSet.from_file(tmp_path / "features" / "cuts_train.jsonl.gz"):
            senones = np.arange(cut.features.num_frames)
            cut.senones = writer.store_array(cut.id, senones, frame_shift=0.01, temporal_dim=0, start=cut.start)
            assert len(cut.load_features()) == cut.num_frames
            assert len(cut.load_custom("senones")) == cut.num_frames
