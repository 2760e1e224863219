"""Copies of recordings as other devices, lines, codecs, rooms and editors leave them."""

import numpy as np
import pytest
import soundfile
import torch
from lhotse import Recording, SupervisionSegment
from lhotse.utils import compute_num_frames_from_samples, fastcopy
from scipy.signal import correlate, welch

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import clean_id, shared_frames, source_id
from asr_kd.features import __main__ as features
from asr_kd.features.conditions import KINDS
from asr_kd.features.config import Config
from asr_kd.features.degrade import degrade, degraded_copies, speech_range

RATE = 16000
EXAMPLES = (
    "band:4000", "band:6000", "telephone", "gsm", "mp3:16", "mp3:64", "opus:32", "room:0.3", "gain:0.1", "tight",
    "margins:0.5",
)  # fmt: skip


def recording(folder, rate=RATE, seed=0):
    """A cut of 0.305 s of faint hiss, 1.2 s of louder noise, and 0.4 s of hiss, and its samples."""
    generator = np.random.default_rng(seed)
    pieces = [(0.305, 1e-4), (1.2, 0.1), (0.4, 1e-4)]
    samples = np.concatenate([level * generator.standard_normal(round(rate * s)) for s, level in pieces])
    path = folder / f"{rate}-{seed}.wav"
    soundfile.write(path, samples, rate, subtype="FLOAT")
    cut = Recording.from_file(path).to_cut()
    spoken = SupervisionSegment(cut.id, cut.id, 0, cut.duration, speaker="anna", text="HELLO")
    return fastcopy(cut, supervisions=[spoken]), cut.load_audio()[0]


def copies(cut, samples, conditions=EXAMPLES):
    """{condition: (copy, its samples)}"""
    return {c: degrade(next(degraded_copies([cut], [c])), samples) for c in conditions}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    cut, samples = recording(tmp_path_factory.mktemp("made"))
    return cut, samples, copies(cut, samples)


def frames(cut):
    return compute_num_frames_from_samples(cut.num_samples, 0.01, cut.sampling_rate)


def power(samples, low, high, rate=RATE):
    """Mean power between two frequencies."""
    frequency, density = welch(samples, rate, nperseg=512)
    return density[(frequency >= low) & (frequency < high)].mean()


def test_every_kind_has_an_example():
    assert {text.partition(":")[0] for text in EXAMPLES} == set(KINDS)


def test_copies_say_what_they_are(made):
    cut, _, degraded = made
    for condition, (copy, _) in degraded.items():
        assert copy.id == f"{cut.id}_{condition.replace(':', '-')}" and copy.condition == condition
        assert clean_id(copy) == source_id(copy) == cut.id and copy.supervisions[0].speaker != "anna"


def test_times_stay_where_they_are(made):
    cut, samples, degraded = made
    for condition, (copy, changed) in degraded.items():
        assert changed.dtype == np.float32 and copy.num_samples == len(changed), condition
        shared = shared_frames(copy, frames(copy))
        own = changed[shared.own.start * 160 : shared.own.stop * 160]
        clean = samples[shared.clean.start * 160 : shared.clean.stop * 160]
        lag = correlate(own[: len(clean)], clean, method="fft").argmax() - (len(clean) - 1)
        assert abs(lag) <= 1, condition
        assert shared.total == frames(cut)


def test_bands_are_cut(made):
    _, samples, degraded = made
    for condition, low, high in (
        ("band:4000", 0, 4000), ("band:6000", 0, 6000), ("telephone", 300, 3400), ("gsm", 300, 3400),
    ):  # fmt: skip
        changed = degraded[condition][1]
        assert power(changed, high + 800, 8000) < 1e-3 * power(samples, high + 800, 8000), condition
        assert power(changed, 1000, 3000) > 0.5 * power(samples, 1000, 3000), condition
        if low:
            assert power(changed, 30, 100) < 0.05 * power(samples, 30, 100)


def test_codecs_lose_more_at_fewer_bits(made):
    _, samples, degraded = made
    errors = {c: np.mean((degraded[c][1] - samples) ** 2) / np.mean(samples**2) for c in ("mp3:16", "mp3:64")}
    assert 0 < 4 * errors["mp3:64"] < errors["mp3:16"] < 1


def test_levels_are_those_of_16_bits(made):
    cut, samples, degraded = made
    steps = degraded["gain:0.1"][1] * (1 << 15)
    assert np.array_equal(steps, np.rint(steps)) and np.abs(steps - 3276.8 * samples).max() <= 0.5001
    _, loud = copies(cut, samples, ["gain:100"])["gain:100"]
    assert loud.max() == 1 - 2.0**-15 and loud.min() == -1


def test_rooms_follow_from_the_utterance_alone(made, tmp_path):
    cut, samples, degraded = made
    state = torch.random.get_rng_state()
    (_, again), (_, other) = (
        degrade(next(degraded_copies([one], ["room:0.3"])), samples) for one in (cut, fastcopy(cut, id="another"))
    )
    assert np.array_equal(again, degraded["room:0.3"][1]) and not np.allclose(other, again, atol=0.01)
    assert torch.equal(state, torch.random.get_rng_state())
    tail = slice(round(1.51 * RATE), round(1.54 * RATE))
    assert np.mean(again[tail] ** 2) > 100 * np.mean(samples[tail] ** 2)


def test_tight_cuts_keep_the_speech_and_margins_surround_it(made):
    cut, samples, degraded = made
    assert speech_range(samples, 160) == (27, 154)  # of 0.305 to 1.505 s, with three frames on either side
    copy, changed = degraded["tight"]
    assert np.array_equal(changed, samples[27 * 160 : 154 * 160]) and frames(copy) == 127
    assert copy.supervisions[0].duration == copy.duration
    copy, changed = degraded["margins:0.5"]
    assert np.array_equal(changed[8000:-8000], samples) and frames(copy) == frames(cut) + 100
    assert 20 * np.log10(samples.std() / changed[:8000].std()) == pytest.approx(50, abs=11)


def test_a_recording_of_speech_alone_stays_as_it_is():
    loud = np.random.default_rng(0).standard_normal(16050).astype(np.float32)
    assert speech_range(loud, 160) == (0, 100)
    click = np.zeros(16050, np.float32)
    click[16049] = click[8000] = 1
    first, stop = speech_range(click, 160)
    assert stop - first >= 10 and first <= 50


def test_other_rates(tmp_path):
    for rate in (8000, 44100):
        cut, samples = recording(tmp_path, rate)
        for condition, (copy, changed) in copies(cut, samples).items():
            assert copy.num_samples == len(changed) and changed.dtype == np.float32
            if rate == 8000 and condition.startswith("band"):
                assert np.array_equal(changed, samples)
            elif condition.startswith("mp3"):
                assert np.corrcoef(changed, samples)[0, 1] > 0.3


@pytest.mark.parametrize(
    ("flags", "fault"),
    [
        ({"degrade": ("mp4:32",)}, "no kind 'mp4': give band:6000, telephone, gsm, mp3:32"),
        ({"degrade": ("mp3",)}, "--degrade mp3: mp3 needs a number from 8 to 160, as in mp3:32"),
        ({"degrade": ("room:nan",)}, "room needs a number from 0.15 to 2"),
        ({"degrade": ("opus:4",)}, "opus needs a number from 6"),
        ({"degrade": ("band:wide",)}, "band needs a number"),
        ({"degrade": ("tight:3",)}, "tight has no value: give tight"),
        ({"degrade": ("mp3:32", "mp3:32.0")}, "its conditions must be different"),
        ({"degrade": ("gsm",), "degrade_copies": 2}, "--degrade-copies 2 would need as many .* has 1"),
        ({"degrade_copies": 2}, "--degrade-copies 2 would need as many .* has 0"),
        ({"degrade": ("gsm",), "kind": "given"}, "--degrade has no effect with --kind given"),
    ],
)
def test_what_cannot_be_is_refused(flags, fault, tmp_path):
    with pytest.raises(UserError, match=fault):
        Config(tmp_path, tmp_path, **flags)


def test_a_library_without_a_codec_is_told_before_anything_is_computed(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(soundfile, "check_format", lambda container, subtype: container != "MP3")
    with pytest.raises(UserError, match="cannot write MP3 MPEG_LAYER_III: leave out --degrade mp3:32, or install"):
        features.main(Config(prepared.data, tmp_path / "out", degrade=("gsm", "mp3:32")))
    assert not (tmp_path / "out").exists()
