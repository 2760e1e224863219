"""What speech of a corpus is like: what the normalisation of a recording knows before it has heard much."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.features.extractors import raw_features
from asr_kd.features.normalise import Normaliser, find_speech, speech_sums


def usual_speech(normaliser: Normaliser, cuts: Iterable[MonoCut]) -> np.ndarray:
    """(2, F) features of speech above its level, and their squares: means over speakers, or over utterances."""
    if normaliser.usual is not None:
        known: np.ndarray = normaliser.usual[1:]
        return known
    front_end, moments = normaliser.front_end, []
    for cut in cuts:
        features = raw_features(cut)
        sums = speech_sums(front_end, features, find_speech(front_end, features))
        moments.append(sums[1:] / sums[0])
    usual: np.ndarray = np.mean(moments, 0)
    return usual
