"""Statistics of transforms over the training chunks (LDA, MLLT, fMLLR, the speaker-independent model), in workers."""

from __future__ import annotations

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

    def speech(self, chunk: Chunk) -> Iterable[tuple[int, np.ndarray, np.ndarray]]:
        """Yield of each aligned utterance its number, its frames of speech (T,) bool, and their pdfs."""
        transitions, _, _ = load(self.model)
        alignment = load_array(self.chunk / ALIGNMENT)
        for number, (_, span, _) in enumerate(chunk.utterances()):
            path = alignment[span]
            speech = (path > 0) & ~np.isin(transitions.phone[path], self.silence_phones)
            yield number, speech, transitions.pdf[path[speech]]


def lda_statistics(job: StatisticsJob) -> ClassStatistics:
    """Statistics of the spliced cepstra of a chunk, with the pdfs as classes."""
    chunk = Chunk.load(job.chunk)
    stats = ClassStatistics.zeros(load(job.model)[0].num_pdfs, splice(chunk.cepstra[:1]).shape[1])
    for number, speech, pdfs in job.speech(chunk):
        first, last = chunk.bounds[number : number + 2]
        stats.add(splice(chunk.cepstra[first:last])[speech], pdfs)
    return stats


def chunk_mllt_statistics(job: StatisticsJob) -> RowStatistics:
    """Statistics of MLLT in a chunk."""
    chunk = Chunk.load(job.chunk)
    _, gmms, transform = load(job.model)
    features = ChunkFeatures(chunk, job.model, transform)
    parts = [(features[number][speech], pdfs) for number, speech, pdfs in job.speech(chunk)]
    return mllt_statistics(gmms, *(np.concatenate(part) for part in zip(*parts, strict=True)))


def chunk_fmllr_statistics(job: StatisticsJob) -> dict[str, RowStatistics]:
    """Statistics of the transform of each speaker of a chunk who has frames of speech."""
    chunk = Chunk.load(job.chunk)
    _, gmms, transform = load(job.model)
    features = ChunkFeatures(chunk, job.model, transform)
    total: dict[str, RowStatistics] = {}
    for number, speech, pdfs in job.speech(chunk):
        if len(pdfs):
            plain, adapted = features.unadapted(number)[speech], features[number][speech]
            add(total, chunk.speakers[number], fmllr_statistics(gmms, plain, pdfs, adapted, gmms))
    return total


def unadapted_statistics(job: StatisticsJob) -> Accumulators:
    """Statistics of the features without the speakers' transforms, with the posteriors of those with them."""
    chunk = Chunk.load(job.chunk)
    transitions, gmms, transform = load(job.model)
    features = ChunkFeatures(chunk, job.model, transform)
    plain = np.concatenate([features.unadapted(number) for number in range(len(chunk.ids))])
    alignment = load_array(job.chunk / ALIGNMENT)
    aligned = alignment > 0
    return accumulate(gmms, features.all()[aligned], transitions.pdf[alignment[aligned]], plain[aligned])


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

    Statistics are kept only until the last chunk with the speaker.
    """
    last = {speaker: number for number, names in enumerate(speakers) for speaker in names}
    total: dict[str, RowStatistics] = {}
    transforms = {}
    for number, part in enumerate(parts):
        for speaker, stats in part.items():
            add(total, speaker, stats)
        for speaker in speakers[number]:
            if last[speaker] == number:
                transforms[speaker] = fmllr(total.pop(speaker, None), dim).astype(np.float32)
    return transforms
