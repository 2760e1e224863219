"""Noisy copies of cuts, with a few other speakers in the background."""

import copy
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from lhotse.cut import MonoCut
from lhotse.utils import fastcopy

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import noisy_name, source_id
from asr_kd.corpora.effects import record, rms

NUM_VOICES = 4  # that speak at once
MAX_TALKERS = 2000  # recordings from which voices are drawn


def read_talkers(cuts: Iterable[MonoCut], split: str) -> list[MonoCut]:
    """The first cuts of a split, whose speakers can talk in the background.

    Raises:
        UserError: the split has fewer than two speakers.
    """
    talkers = list(islice(cuts, MAX_TALKERS))
    if len({cut.supervisions[0].speaker for cut in talkers}) < 2:
        raise UserError(f"{split} has a single speaker, so no other can babble: leave out --babble")
    return talkers


def noisy_copies(cuts: Iterable[MonoCut], ratios: Sequence[float], talkers: Sequence[MonoCut]) -> Iterator[MonoCut]:
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
        others = (talker for talker in shuffled if talker.supervisions[0].speaker != own)
        voices = [fastcopy(talker, supervisions=[]).to_dict() for talker in islice(others, NUM_VOICES)]
        # Noise changes the spectrum: normalise the noisy speaker by statistics of its own.
        supervision = fastcopy(cut.supervisions[0], speaker=noisy_name(cut.supervisions[0].speaker, snr))
        yield fastcopy(
            cut, id=noisy_name(cut.id, snr), supervisions=[supervision],
            custom={**custom, "clean_id": cut.id, "source_id": source_id(cut), "babble": voices, "snr": snr},
        )  # fmt: skip


def add_babble(samples: np.ndarray, cut: MonoCut) -> np.ndarray:
    """The samples of a noisy copy, at the rate of its recording, mixed with its background at an unchanged level."""
    babble = np.zeros(len(samples), dtype=np.float32)
    for talker in copy.deepcopy(cut.babble):  # which is taken apart
        voice = MonoCut.from_dict(talker).load_audio()[0]
        babble += np.resize(voice / rms(voice), len(babble))
    return record(samples, babble / rms(babble), None, cut.snr, 0.0, 20 * math.log10(rms(samples)))
