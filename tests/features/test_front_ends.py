"""Front ends other than the default one: rates, filters, MFCCs, other extractors of Lhotse."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from front_ends import front_end
from torch import from_numpy
from torchaudio.compliance.kaldi import fbank, mfcc
from training import inline_jobs

from asr_kd.common.errors import UserError
from asr_kd.common.storage import write_json
from asr_kd.features.__main__ import main
from asr_kd.features.audio import read_audio
from asr_kd.features.config import Config
from asr_kd.features.extractors import extract, make_front_end
from asr_kd.features.front_end import FrontEnd

NOISE = np.random.default_rng(0).normal(0, 0.1, 12000).astype(np.float32)


def test_the_default_is_what_it_was() -> None:
    found = front_end()
    assert found.vowel_filters == slice(5, 23)
    assert (found.num_features, found.sampling_rate, found.settings["high_freq"]) == (40, 16000, 7800)
    assert str(found) == "40 log-mels at 16000 Hz (high_freq 7800.0), normalised by utterance"


@pytest.mark.parametrize("rate", [4000, 8000, 16000, 22000, 48000])
@pytest.mark.parametrize("filters", [23, 40, 64])
def test_log_mels_match_those_of_kaldi(rate: int, filters: int) -> None:
    if rate == 4000 and filters == 64:
        return  # too many, as below
    expected = fbank(
        from_numpy(NOISE)[None] * (1 << 15), num_mel_bins=filters, low_freq=20, high_freq=rate / 2 - 200, dither=0.0,
        snip_edges=False, sample_frequency=rate,
    ).numpy()  # fmt: skip
    found = extract(front_end(sampling_rate=rate, num_filters=filters), NOISE)
    assert found.shape == expected.shape and np.abs(found - expected).max() < 2e-3


def test_mfccs_match_those_of_kaldi() -> None:
    expected = mfcc(
        from_numpy(NOISE)[None] * (1 << 15), num_mel_bins=30, num_ceps=13, low_freq=20, high_freq=3700, dither=0.0,
        snip_edges=False, sample_frequency=8000, frame_length=32,
    ).numpy()  # fmt: skip
    known = front_end(
        kind="mfcc", num_filters=30, num_ceps=13, sampling_rate=8000, high_freq=3700.0, frame_length=0.032
    )  # fmt: skip
    assert np.abs(extract(known, NOISE) - expected).max() < 1e-2


def test_the_loudness_of_mfccs_is_that_of_their_log_mels() -> None:
    samples = NOISE * np.repeat(np.random.default_rng(1).uniform(0.01, 1, 12), 1000).astype(np.float32)
    log_mels, all_cepstra, few = (
        front_end(num_filters=23, **more) for more in ({}, *({"kind": "mfcc", "num_ceps": n} for n in (23, 13)))
    )
    expected = log_mels.loudness(extract(log_mels, samples))
    np.testing.assert_allclose(all_cepstra.loudness(extract(all_cepstra, samples)), expected, atol=1e-3)
    assert np.corrcoef(few.loudness(extract(few, samples)), expected)[0, 1] > 0.99


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"sampling_rate": 11025}, "no whole number of samples in 10 ms: give a multiple of 100"),
        ({"sampling_rate": 3900}, "--sampling-rate is 3900, but must be from 4,000"),
        ({"sampling_rate": 8000, "high_freq": 4001.0}, "has nothing above 4000 Hz"),
        ({"low_freq": 5000.0, "high_freq": -4000.0}, "from 5000 to 4000 Hz"),
        ({"high_freq": -9000.0}, "from 20 to -1000 Hz"),
        ({"num_filters": 3}, "--num-filters is 3, but must be 4 or more"),
        ({"num_filters": 128}, r"128 filters are too many: filter \d+ is narrower"),
        ({"sampling_rate": 4000, "num_filters": 64}, "64 filters are too many"),
        ({"low_freq": 3000.0}, "no filter lies between 300 and 2200 Hz"),
        ({"kind": "mfcc", "num_ceps": 41}, "--num-ceps 41 is more than --num-filters 40"),
        ({"frame_length": 25.0}, "--frame-length is 25.0"),
        ({"kind": "given", "num_filters": 80}, "--num-filters has no effect with --kind given"),
        ({"kind": "given", "speed_perturb": (0.9,)}, "--speed-perturb has no effect with --kind given"),
        ({"extractor": Path("a.yaml"), "high_freq": 7000.0}, "--high-freq has no effect with --extractor"),
        ({"extractor": Path("a.yaml"), "kind": "given"}, "--extractor has no effect with --kind given"),
    ],
)
def test_settings_that_cannot_be(flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        front_end(**flags)


def test_no_filter_of_accepted_settings_is_empty() -> None:
    for flags in (
        {"num_filters": 80},
        {"num_filters": 64, "sampling_rate": 8000},
        {"num_filters": 40, "frame_length": 0.01},
    ):
        try:
            known = front_end(**flags)
        except UserError:
            continue
        assert (extract(known, NOISE).min(0) > 0).all(), flags


def extractor(tmp_path: Path, **settings: Any) -> Config:
    (tmp_path / "extractor.yaml").write_text(yaml.safe_dump(settings))
    return Config(tmp_path, tmp_path / "out", extractor=tmp_path / "extractor.yaml")


def test_any_extractor_of_lhotse(tmp_path: Path) -> None:
    known = make_front_end(extractor(tmp_path, feature_type="kaldi-log-spectrogram", sampling_rate=8000))
    assert (known.num_features, known.sampling_rate, known.finds_speech) == (129, 8000, False)
    assert extract(known, NOISE).shape == (150, 129)
    same = make_front_end(
        extractor(tmp_path, feature_type="kaldi-fbank", num_filters=40, high_freq=-200.0, low_freq=20.0, device="cpu")
    )  # fmt: skip
    assert str(same) == str(front_end()) and same.finds_speech
    for settings in ({"use_fft_mag": True}, {"low_freq": 4000.0}):
        assert not make_front_end(extractor(tmp_path, feature_type="kaldi-fbank", **settings)).finds_speech
    np.testing.assert_array_equal(extract(same, NOISE), extract(front_end(), NOISE))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"feature_type": "fbanks"}, "Lhotse has no feature_type 'fbanks': give one of .*kaldi-fbank"),
        ({"num_filters": 40}, "Lhotse has no feature_type ''"),
        ({"feature_type": "kaldi-fbank", "filters": 40}, r"Lhotse cannot make kaldi-fbank \(TypeError"),
        ({"feature_type": "kaldi-fbank", "frame_shift": 0.0125}, "a frame every 12.5 ms, but frames of 10 ms"),
    ],
)
def test_extractors_that_cannot_be(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make_front_end(extractor(tmp_path, **settings))


def test_wrong_settings_remove_nothing_and_other_ones_make_features_again(prepared, tmp_path: Path, capsys) -> None:
    config = dataclasses.replace(extractor(tmp_path, feature_type="kaldi-spectrogram"), data=prepared.data)
    with inline_jobs():
        main(config)
        extractor(tmp_path, feature_type="none")
        with pytest.raises(UserError, match="no feature_type 'none'"):
            main(config)
        assert FrontEnd.load(config.out).num_features == 257
        extractor(tmp_path, feature_type="kaldi-spectrogram", sampling_rate=8000)
        main(config)
    assert FrontEnd.load(config.out).num_features == 129
    assert capsys.readouterr().out.count("is outdated") == 1


def test_mfccs_are_shown_as_log_mels() -> None:
    log_mels, cepstra = (
        front_end(kind=kind, num_filters=23, **more) for kind, more in (("fbank", {}), ("mfcc", {"num_ceps": 23}))
    )
    shown = cepstra.heat_map(extract(cepstra, NOISE))
    np.testing.assert_allclose(shown, log_mels.heat_map(extract(log_mels, NOISE)), atol=1e-2)


def test_descriptions_are_read_back_and_those_of_other_versions_refused(tmp_path: Path) -> None:
    for known in (front_end(), front_end(kind="mfcc", normalise="speaker")):
        write_json(tmp_path / "cmvn.json", {**known.to_json(), "speakers": []})
        assert FrontEnd.load(tmp_path) == known
    write_json(tmp_path / "cmvn.json", {"front_end": "40 log-mels", "speakers": []})
    with pytest.raises(UserError, match=r"of another version.*: run asr_kd.features again"):
        FrontEnd.load(tmp_path)


def test_files_of_any_rate_are_read_at_that_of_the_features(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", NOISE, 16000, subtype="FLOAT")
    samples = read_audio(tmp_path / "a.wav", 8000)
    assert len(samples) == 6000 and extract(front_end(sampling_rate=8000), samples).shape == (75, 40)
