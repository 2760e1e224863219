"""Noisy copies with other speakers in the background."""

import numpy as np
import pytest

from asr_kd.common.errors import UserError
from asr_kd.corpora.effects import rms
from asr_kd.features.babble import add_babble, noisy_copies, read_talkers
from asr_kd.features.cuts import read_cuts


@pytest.mark.parametrize("rate", [8000, 16000])
def test_noise_has_the_given_ratio_and_other_voices(prepared, rate):
    talkers = read_talkers(read_cuts(prepared.data, "train", rate), "train")
    clean = next(read_cuts(prepared.data, "dev", rate))
    (cut,) = noisy_copies([clean], [6.0], talkers)
    samples = clean.load_audio()[0]
    noisy = add_babble(samples, cut)
    assert rms(noisy) == pytest.approx(rms(samples), rel=1e-3)
    assert np.array_equal(noisy, add_babble(samples, cut))
    scale = np.dot(noisy, samples) / np.dot(samples, samples)
    noise = noisy - scale * samples
    speech = samples[np.abs(samples) > 0.02 * np.abs(samples).max()]  # without its pauses
    assert 20 * np.log10(scale * rms(speech) / rms(noise)) == pytest.approx(6.0, abs=0.5)
    (cut,) = noisy_copies([next(read_cuts(prepared.data, "train", rate))], [6.0], talkers)
    paths = [voice["recording"]["sources"][0]["source"] for voice in cut.babble]
    assert not any(f"/{cut.supervisions[0].id.partition('-')[0]}/" in path for path in paths)


def test_a_single_speaker_cannot_babble(prepared):
    with pytest.raises(UserError, match="dev has a single speaker"):
        read_talkers([next(read_cuts(prepared.data, "dev", 16000))], "dev")
