"""Statistics of transforms over the training chunks (LDA, MLLT, fMLLR, the speaker-independent model), in workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_kd.common.storage import load_array
from asr_kd.hmm.cepstra import splice
from asr_kd.hmm.corpus import Chunk
from asr_kd.hmm.gmm import Accumulators, accumulate
from asr_kd.hmm.passes import ALIGNMENT, ChunkFeatures, ModelFiles, load
from asr_kd.hmm.transforms import ClassStatistics, RowStatistics, fmllr, fmllr_statistics, mllt_statistics

#: Speakers whose transforms are estimated at once.
SPEAKERS = 32


@dataclass(frozen=True)
class StatisticsJob:
    """Statistics of one chunk with its stored alignment, over the frames of speech alone.

    Attributes:
        chunk: its folder.
        model: the model that the alignment belongs to.
        silence_phones: ids of the phones whose frames are left out.
    """

    chunk: Path
    model: ModelFiles
    silence_phones: tuple[int, ...]

    def speech(self) -> tuple[np.ndarray, np.ndarray]:
        """The aligned frames of speech (T,) bool, and their pdfs."""
        transitions, _, _ = load(self.model)
        alignment = load_array(self.chunk / ALIGNMENT)
        speech = (alignment > 0) & ~np.isin(transitions.phone, self.silence_phones)[alignment]
        return speech, transitions.pdf[alignment[speech]]


def lda_statistics(job: StatisticsJob) -> ClassStatistics:
    """Statistics of the spliced cepstra of a chunk, with the pdfs as classes."""
    chunk = Chunk.load(job.chunk)
    stats = ClassStatistics.zeros(load(job.model)[0].num_pdfs, splice(chunk.cepstra[:1]).shape[1])
    speech, pdfs = job.speech()
    ends = np.cumsum(speech)
    for a, b in itertools.pairwise(chunk.bounds.tolist()):
        if speech[a:b].any():
            stats.add(splice(chunk.cepstra[a:b])[speech[a:b]], pdfs[ends[a] - speech[a] : ends[b - 1]])
    return stats


def chunk_mllt_statistics(job: StatisticsJob) -> RowStatistics:
    """Statistics of MLLT in a chunk."""
    chunk = Chunk.load(job.chunk)
    _, gmms, transform = load(job.model)
    speech, pdfs = job.speech()
    return mllt_statistics(gmms, ChunkFeatures(chunk, job.model, transform).all[speech], pdfs)


def chunk_fmllr_statistics(job: StatisticsJob) -> dict[str, RowStatistics]:
    """Statistics of the transform of each speaker of a chunk who has frames of speech."""
    chunk = Chunk.load(job.chunk)
    _, gmms, transform = load(job.model)
    features = ChunkFeatures(chunk, job.model, transform)
    speech, pdfs = job.speech()
    utterances = np.repeat(np.arange(len(chunk.ids)), np.diff(chunk.bounds))[speech]
    speakers = np.array([chunk.voices.index(name) for name in chunk.speakers])[utterances]
    total = fmllr_statistics(gmms, features.unadapted[speech], pdfs, features.all[speech], gmms, speakers, utterances)
    return {chunk.voices[number]: stats for number, stats in total.items()}


def unadapted_statistics(job: StatisticsJob) -> Accumulators:
    """Statistics of the features without the speakers' transforms, with the posteriors of those with them."""
    chunk = Chunk.load(job.chunk)
    transitions, gmms, transform = load(job.model)
    features = ChunkFeatures(chunk, job.model, transform)
    alignment = load_array(job.chunk / ALIGNMENT)
    aligned = alignment > 0
    return accumulate(gmms, features.all[aligned], transitions.pdf[alignment[aligned]], features.unadapted[aligned])


def add(total: dict[str, RowStatistics], speaker: str, stats: RowStatistics) -> None:
    """Add the statistics of an utterance or a chunk to those of its speaker."""
    if speaker in total:
        total[speaker] += stats
    else:
        total[speaker] = stats


def speaker_transforms(
    parts: Iterable[Mapping[str, RowStatistics]], speakers: list[list[str]], dim: int
) -> dict[str, np.ndarray]:
    """The transform (D, D + 1) float32 of each speaker, from the statistics of chunks with these speakers.

    Statistics are kept only until the last chunk with the speaker, and those of a few more speakers.
    """
    last = {speaker: number for number, names in enumerate(speakers) for speaker in names}
    total: dict[str, RowStatistics] = {}
    transforms: dict[str, np.ndarray] = {}
    complete: list[str] = []
    for number, part in enumerate(parts):
        for speaker, stats in part.items():
            add(total, speaker, stats)
        complete += [speaker for speaker in speakers[number] if last[speaker] == number]
        while len(complete) >= SPEAKERS or (complete and number == len(speakers) - 1):
            group, complete = complete[:SPEAKERS], complete[SPEAKERS:]
            found = fmllr([total.pop(speaker, None) for speaker in group], dim)
            transforms.update(zip(group, found.astype(np.float32), strict=True))
    return transforms
