"""Noisy copies of cuts: a few other people speak in the background."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import noisy_name, source_id
from asr_kd.corpora.effects import record, rms
from asr_kd.corpora.manifests import read_jsonl
from asr_kd.features.audio import read_audio

VOICES = 4  # that speak at once
MOST = 2000  # recordings that voices are drawn from
#: Speaker and audio file.
Talker = tuple[str, str]


def talkers(data: Path, split: str) -> list[Talker]:
    """Who may speak in the background: the first recordings of a split.

    Raises:
        UserError: the split has fewer than two speakers.
    """
    pairs = zip(
        read_jsonl(data / f"supervisions_{split}.jsonl.gz"),
        read_jsonl(data / f"recordings_{split}.jsonl.gz"),
        strict=True,
    )
    found = [(one["speaker"], recording["sources"][0]["source"]) for one, recording in islice(pairs, MOST)]
    if len({speaker for speaker, _ in found}) < 2:
        raise UserError(
            f"{split} of {data} has a single speaker, nobody to speak in the background: leave out --babble"
        )
    return found


def noisy_copies(cuts: Iterable[MonoCut], ratios: Sequence[float], crowd: Sequence[Talker]) -> Iterator[MonoCut]:
    """A copy of each cut that remembers which noise it is to have: its audio is mixed when features are computed.

    Args:
        ratios: of speech to noise, in dB; each cut gets one of them.
        crowd: who may speak in the background; a cut's own speaker does not.
    """
    for cut in cuts:
        generator = np.random.default_rng(zlib.crc32(cut.id.encode()))
        snr = float(generator.choice(np.asarray(ratios)))
        speaker = (cut.custom or {}).get("source_speaker", cut.supervisions[0].speaker)
        drawn = (crowd[index] for index in generator.permutation(len(crowd)))
        voices = list(islice((path for other, path in drawn if other != speaker), VOICES))
        # Noise changes the spectrum: such a speaker is normalised by statistics of his own.
        supervision = fastcopy(cut.supervisions[0], speaker=noisy_name(cut.supervisions[0].speaker, snr))
        yield fastcopy(
            cut, id=noisy_name(cut.id, snr), supervisions=[supervision],
            custom={**(cut.custom or {}), "clean_id": cut.id, "source_id": source_id(cut), "babble": voices, "snr": snr},
        )  # fmt: skip


def with_babble(samples: np.ndarray, cut: MonoCut) -> np.ndarray:
    """The samples of a cut of ``noisy_copies`` with its noise, as loud as before."""
    crowd = np.zeros(len(samples), dtype=np.float32)
    for path in cut.babble:
        voice = read_audio(path)
        crowd += np.resize(voice / rms(voice), len(crowd))
    return record(samples, crowd / rms(crowd), None, cut.snr, 0.0, 20 * math.log10(rms(samples)))
