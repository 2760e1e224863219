"""Noisy copies of cuts, with a few other speakers in the background."""

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

NUM_VOICES = 4  # that speak at once
MAX_TALKERS = 2000  # recordings from which voices are drawn
#: Speaker and audio file.
Talker = tuple[str, str]


def read_talkers(data: Path, split: str) -> list[Talker]:
    """The first recordings of a split, whose speakers can talk in the background.

    Raises:
        UserError: the split has fewer than two speakers.
    """
    pairs = zip(
        read_jsonl(data / f"supervisions_{split}.jsonl.gz"),
        read_jsonl(data / f"recordings_{split}.jsonl.gz"),
        strict=True,
    )
    talkers = [
        (supervision["speaker"], recording["sources"][0]["source"])
        for supervision, recording in islice(pairs, MAX_TALKERS)
    ]
    if len({speaker for speaker, _ in talkers}) < 2:
        raise UserError(f"{split} of {data} has a single speaker, so no other can babble: leave out --babble")
    return talkers


def noisy_copies(cuts: Iterable[MonoCut], ratios: Sequence[float], talkers: Sequence[Talker]) -> Iterator[MonoCut]:
    """A copy of each cut that describes its noise; the audio is mixed when features are computed.

    Args:
        ratios: signal-to-noise ratios in dB, of which each cut gets one.
        talkers: who may speak in the background of other speakers' cuts.
    """
    for cut in cuts:
        generator = np.random.default_rng(zlib.crc32(cut.id.encode()))
        snr = float(generator.choice(np.asarray(ratios)))
        custom = cut.custom or {}
        own = custom.get("source_speaker", cut.supervisions[0].speaker)
        shuffled = (talkers[index] for index in generator.permutation(len(talkers)))
        voices = list(islice((path for speaker, path in shuffled if speaker != own), NUM_VOICES))
        # Noise changes the spectrum: normalise the noisy speaker by statistics of its own.
        supervision = fastcopy(cut.supervisions[0], speaker=noisy_name(cut.supervisions[0].speaker, snr))
        yield fastcopy(
            cut, id=noisy_name(cut.id, snr), supervisions=[supervision],
            custom={**custom, "clean_id": cut.id, "source_id": source_id(cut), "babble": voices, "snr": snr},
        )  # fmt: skip


def add_babble(samples: np.ndarray, cut: MonoCut) -> np.ndarray:
    """The samples of a noisy copy, mixed with its background at an unchanged level."""
    babble = np.zeros(len(samples), dtype=np.float32)
    for path in cut.babble:
        voice = read_audio(path)
        babble += np.resize(voice / rms(voice), len(babble))
    return record(samples, babble / rms(babble), None, cut.snr, 0.0, 20 * math.log10(rms(samples)))
