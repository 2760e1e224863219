"""The forms of a network on one split: its words, and what they cost."""

from __future__ import annotations

import dataclasses
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.bundle.config import Config
from asr_kd.common.progress import progress
from asr_kd.corpora.cuts import load_cuts
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.calibration import right_words
from asr_kd.features.extractors import compute_features
from asr_kd.features.normalise import Normaliser
from asr_kd.features.parts import parts
from asr_kd.models.network import read_network
from asr_kd.runtime import Recogniser
from asr_kd.runtime.bundle import FLOAT, INT8, Bundle
from asr_kd.runtime.search import Found, Search
from asr_kd.score.wer import Reference, Scores, score

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
        references, words: what was said and what was found, by split and utterance.
        seconds, audio_seconds: of scoring on one core, from samples to scores, and of the audio.
        measures, right: what is measured of each word that was found, and whether it is right, by split.
    """

    name: str
    bytes: int
    references: defaultdict[str, dict[str, Reference]] = dataclasses.field(default_factory=lambda: defaultdict(dict))
    words: defaultdict[str, dict[str, list[str]]] = dataclasses.field(default_factory=lambda: defaultdict(dict))
    seconds: float = 0.0
    audio_seconds: float = 0.0
    measures: defaultdict[str, list[np.ndarray]] = dataclasses.field(default_factory=lambda: defaultdict(list))
    right: defaultdict[str, list[bool]] = dataclasses.field(default_factory=lambda: defaultdict(list))

    def scores(self, split: str) -> Scores:
        """Word errors, utterance by utterance."""
        return score(self.references[split], self.words[split])

    def wer(self, split: str) -> float:
        """In percent."""
        return 100 * float(self.scores(split).errors.sum()) / max(self.reference_words(split), 1)

    def reference_words(self, split: str) -> int:
        """The number of words that were said."""
        return sum(len(reference.words) for reference in self.references[split].values())

    @property
    def rtf(self) -> float | None:
        """Seconds of scoring per second of audio, if it was measured."""
        return round(self.seconds / self.audio_seconds, 5) if self.audio_seconds else None

    def figures(self) -> dict[str, Any]:
        """For the completion mark."""
        wer = {split: round(self.wer(split), 2) for split in self.references}
        return {"bytes": self.bytes, "wer": wer, "rtf": self.rtf}


class Forms(NamedTuple):
    """The forms that a bundle is measured in: as trained, in both forms, and in int8 as streams."""

    trained: Form
    float32: Form
    int8: Form
    streams: Form


def measure(
    config: Config, bundle: Bundle, normaliser: Normaliser, samples_of: Callable[[MonoCut], np.ndarray]
) -> Forms:
    """Recognise splits with int8, and the first also with float32 and with the trained network, by the same search.

    Args:
        bundle: what is known of the bundle.
        normaliser: of the trained network's features.
        samples_of: loads the samples of a cut.

    Returns:
        what was measured; streams are recognised on the first split alone.
    """
    recognisers = [Recogniser.from_bundle(config.out, quantised) for quantised in (False, True)]
    files = config.model / "model.safetensors", config.out / FLOAT, config.out / INT8
    forms = [Form(name, file.stat().st_size) for name, file in zip(("trained", "float32", "int8"), files, strict=True)]
    streamed = Form("int8, streams", forms[-1].bytes)
    scorers: list[Scorer] = [_trained(config, bundle, normaliser), *(recogniser.scores for recogniser in recognisers)]
    cuts = [(split, cut) for split in config.splits for cut in load_cuts(config.features, split)]
    for number, (split, cut) in enumerate(progress(cuts, "bundle", len(cuts), "utterance")):
        spoken, samples = cut.supervisions[0], samples_of(cut)
        text = recognisers[0].graph.words.split(spoken.text or "")
        reference = Reference(tuple(text), spoken.speaker or cut.id)
        for form, scorer in zip(forms, scorers, strict=True):
            if split != config.splits[0] and form is not forms[-1]:
                continue  # a comparison on one split is enough
            found, seconds = _recognise(recognisers[0], scorer, samples)
            words = [word.text for word in found]
            if number >= WARM_UP:
                form.seconds += seconds
                form.audio_seconds += cut.duration
            form.references[split][cut.id], form.words[split][cut.id] = reference, words
            form.measures[split] += [word.measures for word in found]
            form.right[split] += right_words(text, words)
        if split == config.splits[0]:
            stream = recognisers[1].stream()
            stream.accept(samples)
            streamed.references[split][cut.id] = reference
            streamed.words[split][cut.id] = stream.finish().text.split()
    trained, as_float, as_int8 = forms
    return Forms(trained, as_float, as_int8, streamed)


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


def _trained(config: Config, bundle: Bundle, normaliser: Normaliser) -> Scorer:
    """The scores of the trained network, whose features are those of an unknown speaker."""
    front_end = normaliser.front_end
    scorer = load_scorer([config.model], config.features, read_network(config.model).num_senones, bundle.silence_pdfs)

    def score(samples: np.ndarray) -> np.ndarray:
        features = normaliser.normalise(compute_features(front_end, samples))
        return scorer.scores(features, 0, len(features)) * np.float32(bundle.acoustic_scale)

    return score
