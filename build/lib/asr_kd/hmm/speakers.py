"""The fMLLR transforms of the speakers of aligned cuts, as Kaldi's align_fmllr.sh estimates them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.parallel import run_in_order
from asr_kd.corpora.cuts import chunks
from asr_kd.hmm.adaptation import add, speaker_transforms
from asr_kd.hmm.align import ForcedAligner
from asr_kd.hmm.corpus import speaker_of
from asr_kd.hmm.kaldi_io import read_model
from asr_kd.hmm.scores import GmmScorer
from asr_kd.hmm.transforms import RowStatistics, fmllr_statistics


@dataclass(frozen=True)
class SpeakerJob:
    """A chunk of cuts whose transcripts are aligned.

    Attributes:
        transforms: archive of the transforms of an earlier round; None: the speaker-independent model aligns.
        silence_pdfs: senones whose frames are left out.
    """

    cuts: Sequence[MonoCut]
    gmm: Path
    lang: Path
    transforms: Path | None
    silence_pdfs: tuple[int, ...]


def speaker_statistics(job: SpeakerJob) -> dict[str, RowStatistics]:
    """The statistics of the speakers of a chunk."""
    load_scorer = partial(GmmScorer, job.gmm, job.transforms)
    scorer, (_, gmms) = load_scorer(), read_model(job.gmm / "tri.mdl")
    results, _ = ForcedAligner(job.gmm, job.lang, load_scorer)(job.cuts)
    total: dict[str, RowStatistics] = {}
    for cut, result in zip(job.cuts, results, strict=True):
        if isinstance(result, str):
            continue
        speech = ~np.isin(result.senones, job.silence_pdfs)
        if speech.any():
            labels, plain = result.senones[speech], scorer.unadapted(cut)[speech]
            add(
                total, speaker_of(cut), fmllr_statistics(gmms, plain, labels, scorer.features(cut)[speech], scorer.gmms)
            )
    return total


def transforms_of(
    executor: Executor, cuts: Callable[[], Iterator[MonoCut]], gmm: Path, lang: Path,
    silence_pdfs: Sequence[int], description: str, earlier: Path | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """The transform (E, E + 1) of each speaker; the identity for those who speak too little.

    Args:
        cuts: reads the cuts, with transcripts; called twice.
        gmm: folder of GMMs that were trained with fMLLR.
        earlier: archive of the transforms of an earlier round, with which the cuts are aligned.
    """
    jobs = (SpeakerJob(chunk, gmm, lang, earlier, tuple(silence_pdfs)) for chunk in chunks(cuts()))
    speakers = [sorted({speaker_of(cut) for cut in chunk}) for chunk in chunks(cuts())]
    parts = run_in_order(executor, speaker_statistics, jobs, description, "chunk", len(speakers))
    return speaker_transforms(parts, speakers, read_model(gmm / "tri.mdl")[1].dim)
