"""The forms of a network on one split: its words, and what they cost."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import kaldialign
import numpy as np
from lhotse.cut import MonoCut

from asr_kd.bundle.config import Config
from asr_kd.common.progress import progress
from asr_kd.common.storage import read_json
from asr_kd.corpora.cuts import load_cuts
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.calibration import right_words
from asr_kd.features.extractors import compute_features
from asr_kd.features.front_end import FrontEnd
from asr_kd.features.normalise import Normaliser
from asr_kd.features.parts import parts
from asr_kd.models.network import read_network
from asr_kd.runtime import Recogniser
from asr_kd.runtime.bundle import FLOAT, INT8
from asr_kd.runtime.search import Found, Search

#: Returns the scores (T, C), times the acoustic scale, of samples.
Scorer = Callable[[np.ndarray], np.ndarray]
#: Utterances that are scored before the clock runs.
WARM_UP = 3


@dataclasses.dataclass
class Form:
    """A form of the network, and what was measured of it.

    Attributes:
        name: of the form.
        bytes: of its file.
        words: hypothesis by split and utterance.
        errors, reference_words: by split.
        seconds, audio_seconds: of scoring on one core, from samples to scores, and of the audio.
        measures, right: what is measured of each word that was found, and whether it is right, by split.
    """

    name: str
    bytes: int
    words: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    errors: Counter[str] = dataclasses.field(default_factory=Counter)
    reference_words: Counter[str] = dataclasses.field(default_factory=Counter)
    seconds: float = 0.0
    audio_seconds: float = 0.0
    measures: defaultdict[str, list[np.ndarray]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    right: defaultdict[str, list[bool]] = dataclasses.field(default_factory=lambda: defaultdict(list))

    def wer(self, split: str) -> float:
        """In percent."""
        return 100 * self.errors[split] / max(self.reference_words[split], 1)

    @property
    def rtf(self) -> float:
        """Seconds of scoring per second of audio."""
        return self.seconds / max(self.audio_seconds, 1e-9)

    def figures(self) -> dict[str, Any]:
        """For the completion mark."""
        wer = {split: round(self.wer(split), 2) for split in self.reference_words}
        return {"bytes": self.bytes, "wer": wer, "rtf": round(self.rtf, 5)}


def measure(config: Config, scale: float, samples_of: Callable[[MonoCut], np.ndarray]) -> list[Form]:
    """Recognise splits with int8, and the first also with float32 and with the trained network, by the same search.

    Args:
        scale: acoustic scale.
        samples_of: loads the samples of a cut.
    """
    recognisers = [Recogniser.from_bundle(config.out, quantised) for quantised in (False, True)]
    files = config.model / "model.safetensors", config.out / FLOAT, config.out / INT8
    forms = [Form(name, file.stat().st_size) for name, file in zip(("trained", "float32", "int8"), files, strict=True)]
    scorers: list[Scorer] = [_trained(config, scale), *(recogniser.scores for recogniser in recognisers)]
    cuts = [(split, cut) for split in config.splits for cut in load_cuts(config.features, split)]
    for number, (split, cut) in enumerate(progress(cuts, "bundle", len(cuts), "utterance")):
        text, samples = recognisers[0].graph.words.split(cut.supervisions[0].text or ""), samples_of(cut)
        for form, score in zip(forms, scorers, strict=True):
            if split != config.splits[0] and form is not forms[-1]:
                continue  # a comparison on one split is enough
            found, seconds = _recognise(recognisers[0], score, samples)
            words = [word.text for word in found]
            if number >= WARM_UP:
                form.seconds += seconds
                form.audio_seconds += cut.duration
            form.words[split, cut.id] = " ".join(words)
            form.errors[split] += kaldialign.edit_distance(text, words)["total"]
            form.reference_words[split] += len(text)
            form.measures[split] += [word.measures for word in found]
            form.right[split] += right_words(text, words)
    return forms


def _recognise(recogniser: Recogniser, score: Scorer, samples: np.ndarray) -> tuple[list[Found], float]:
    """Words of samples by another scorer, and the seconds that it took."""
    words: list[Found] = []
    seconds = 0.0
    for first, part in parts([samples], recogniser.bundle.shift):
        started = time.perf_counter()
        scores = score(part)
        seconds += time.perf_counter() - started
        search = Search(recogniser.graph, first)
        search.accept(scores)
        words += search.found()
    return words, seconds


def _trained(config: Config, scale: float) -> Scorer:
    """The scores of the trained network, whose features are those of an unknown speaker."""
    description, front_end = read_json(config.graph / "graph.json"), FrontEnd.load(config.features)
    scorer = load_scorer(
        [config.model], config.features, read_network(config.model).num_senones, description.get("silence_pdfs", ())
    )
    normaliser = Normaliser(front_end)

    def score(samples: np.ndarray) -> np.ndarray:
        features = normaliser.normalise(compute_features(front_end, samples))
        return scorer.scores(features, 0, len(features)) * np.float32(scale)

    return score
