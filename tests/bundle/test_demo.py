"""The bundle in data/demo, with which a page or a program can be tried."""

from pathlib import Path

import kaldialign
import numpy as np

from asr_kd.check.experiment import Check
from asr_kd.corpora.espeak import RATE, Espeak
from asr_kd.features.audio import Resampler
from asr_kd.runtime import Recogniser

DEMO = Path(__file__).parents[2] / "data/demo"


def test_the_demo_is_whole_and_small() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 3e6
    check = Check(DEMO)
    check.run()
    assert not check.faults
    card = (DEMO / "README.md").read_text()
    assert "Licence of the training data: AN4" in card and "It knows 104 words" in card


def test_the_demo_recognises_a_voice_that_it_never_heard() -> None:
    recogniser, errors, count = Recogniser.from_bundle(DEMO), 0, 0
    with Espeak("en-us+f2") as voice:
        for text in ("ONE TWO THREE FOUR FIVE SIX SEVEN", "ENTER SIXTY THREE", "OCTOBER TWENTY FIRST", "REPEAT"):
            wave, _ = voice.say(text, speed=130)
            resampler = Resampler(RATE, 16000)
            samples = np.concatenate([resampler.accept((wave / 32768).astype(np.float32)), resampler.finish()])
            errors += kaldialign.edit_distance(text.split(), recogniser(samples).text.split())["total"]
            count += len(text.split())
    assert errors <= count / 3
