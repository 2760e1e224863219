"""What speech of a corpus is like: what the normalisation of a recording knows before it has heard much."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.features.extractors import raw_features
from asr_kd.features.front_end import FrontEnd
from asr_kd.features.normalise import SPEAKER_FRAMES, Normaliser, find_speech, speech_sums

#: Frames of usual speech next to those of a recording, for networks that knew their speakers: of a few words alone they
#: would know too little.  Networks that were normalised by the utterance knew no more in training.
USUAL_FRAMES = 100.0


def usual_speech(cuts: Iterable[MonoCut], front_end: FrontEnd) -> np.ndarray:
    """(2, F) features of speech above its level, and their squares: means over utterances."""
    sums = []
    for cut in cuts:
        features = raw_features(cut)
        count, *moments = speech_sums(front_end, features, find_speech(front_end, features))
        sums.append(np.stack(moments) / count)
    usual: np.ndarray = np.mean(sums, 0)
    return usual


def usual_frames(front_end: FrontEnd) -> float:
    """How many frames of usual speech count next to those of a recording."""
    return USUAL_FRAMES if front_end.normalise == "speaker" else 0.0


def unknown_speaker(front_end: FrontEnd, usual: np.ndarray) -> Normaliser:
    """A normaliser for the speaker "", who has spoken that many frames of usual speech."""
    sums = np.stack([np.ones(usual.shape[1]), *usual]) * (usual_frames(front_end) / SPEAKER_FRAMES)
    return Normaliser(front_end, {"": sums})
