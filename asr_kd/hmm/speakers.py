"""The fMLLR transforms of the speakers of aligned cuts, as Kaldi's align_fmllr.sh estimates them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.parallel import run_in_order
from asr_kd.corpora.cuts import chunks
from asr_kd.hmm.adaptation import speaker_transforms
from asr_kd.hmm.align import Alignment, ForcedAligner
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


class _ChunkScorer(GmmScorer):
    """Keeps the features of a chunk of cuts."""

    def __init__(self, folder: Path, transforms: Path | None) -> None:
        super().__init__(folder, transforms)
        self._known: dict[str, np.ndarray] = {}

    def unadapted(self, cut: MonoCut) -> np.ndarray:
        if cut.id not in self._known:
            self._known[cut.id] = super().unadapted(cut)
        return self._known[cut.id]


def speaker_statistics(job: SpeakerJob) -> dict[str, RowStatistics]:
    """The statistics of the speakers of a chunk."""
    scorer, (_, gmms) = _ChunkScorer(job.gmm, job.transforms), read_model(job.gmm / "tri.mdl")
    results, _ = ForcedAligner(job.gmm, job.lang, lambda: scorer)(job.cuts)
    aligned = [
        (cut, result.senones) for cut, result in zip(job.cuts, results, strict=True) if isinstance(result, Alignment)
    ]
    if not aligned:
        return {}
    names = sorted({speaker_of(cut) for cut, _ in aligned})
    labels = np.concatenate([senones for _, senones in aligned])
    utterances = np.repeat(np.arange(len(aligned)), [len(own) for _, own in aligned])
    speakers = np.array([names.index(speaker_of(cut)) for cut, _ in aligned])[utterances]
    plain, adapted = (np.concatenate([read(cut) for cut, _ in aligned]) for read in (scorer.unadapted, scorer.features))
    speech = ~np.isin(labels, job.silence_pdfs)
    total = fmllr_statistics(
        gmms, plain[speech], labels[speech], adapted[speech], scorer.gmms, speakers[speech], utterances[speech]
    )
    return {names[number]: stats for number, stats in total.items()}


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
