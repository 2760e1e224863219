"""Posteriors by phone, as a client draws them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from asr_kd.common.files import read_json
from asr_kd.hmm.word_times import PRONUNCIATIONS
from asr_kd.runtime.bundle import GRAPH, Bundle

#: Where in a word a phone is, which a picture does not tell.
POSITION = re.compile(r"_[BIES]$")


class PhonePosteriors:
    """From the scores of senones to bytes, one for each frame and phone.

    Args:
        folder: a bundle; one that does not know the phones of its senones gives none.
        bundle: its description.
    """

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        path = (folder / GRAPH).with_name(PRONUNCIATIONS)
        phones = read_json(path)["phones"] if path.is_file() else {}
        silence = set(bundle.silence_pdfs)
        pdfs: dict[str, set[int]] = {"SIL": silence} if phones else {}
        for phone, states in phones.items():
            if own := {pdf for state in states for pdf in state} - silence:
                pdfs.setdefault(POSITION.sub("", phone), set()).update(own)
        self.names = [*pdfs]
        self._scale = bundle.acoustic_scale
        self._pdfs = [np.array(sorted(own)) for own in pdfs.values()]

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """(n, P) uint8, 255 for certain, of scores (n, C) times the acoustic scale; all phones are as likely before."""
        if not self.names or not len(scores):
            return np.empty((0, len(self.names)), np.uint8)
        likelihoods = np.exp((scores - scores.max(1, keepdims=True)) / self._scale)
        posteriors = np.stack([likelihoods[:, own].sum(1) for own in self._pdfs], 1)
        return np.rint(255 * posteriors / posteriors.sum(1, keepdims=True)).astype(np.uint8)
