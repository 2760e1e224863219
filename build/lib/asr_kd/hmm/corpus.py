"""Training data on disk, in chunks of utterances, the unit of work of a worker process."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lhotse.cut import MonoCut

from asr_kd.common.storage import atomic_open, load_array, read_json, save_array
from asr_kd.features.normalise import Normaliser
from asr_kd.hmm.cepstra import cepstra
from asr_kd.hmm.pronunciations import Pronunciations
from asr_kd.lang.lexicon import Probabilities

#: The fMLLR transforms of the speakers of a chunk, (S, D, D + 1) float32, in the order of ``Chunk.voices``.
TRANSFORMS = "fmllr.npy"


def speaker_of(cut: MonoCut) -> str:
    """The speaker of a cut; where that is unknown, the cut is a speaker of its own."""
    return str((cut.supervisions and cut.supervisions[0].speaker) or cut.id)


@dataclass(frozen=True)
class ChunkJob:
    """The utterances of one chunk, and the folder to prepare it in."""

    cuts: Sequence[MonoCut]
    folder: Path
    features: Path
    lang: Path


def prepare_chunk(job: ChunkJob) -> list[int]:
    """Write cepstra.npy (T, D) and chunk.json (ids, words, …); returns the number of frames of each utterance."""
    normaliser, pronunciations = Normaliser.load(job.features), Pronunciations.load(job.lang)
    job.folder.mkdir(parents=True, exist_ok=True)
    cuts = [cut for cut in job.cuts if pronunciations.words(cut)]
    features = [cepstra(cut, normaliser) for cut in cuts]
    texts = [pronunciations.words(cut) for cut in cuts]
    lexicon = pronunciations.lexicon(texts)[0]
    save_array(job.folder / "cepstra.npy", np.concatenate(features))
    with atomic_open(job.folder / "chunk.json") as file:
        json.dump(
            {
                "ids": [cut.id for cut in cuts],
                "speakers": [speaker_of(cut) for cut in cuts],
                "frames": [len(values) for values in features],
                "words": texts,
                "lexicon": lexicon,
                "probabilities": pronunciations.probabilities(lexicon),
                "phones": pronunciations.phones,
            },
            file,
        )
    return [len(values) for values in features]


@dataclass(frozen=True)
class Chunk:
    """A chunk written by ``prepare_chunk``.

    Attributes:
        folder: the folder.
        ids: ids of the U utterances.
        speakers: their speakers.
        bounds: (U + 1,) index of the first frame of each utterance.
        words: transcripts.
        lexicon: pronunciations of all their words.
        probabilities: probabilities of the pronunciations, where the lang folder has them.
        phones: names of the phones, indexed by id.
        cepstra: (T, D).
    """

    folder: Path
    ids: list[str]
    speakers: list[str]
    bounds: np.ndarray
    words: list[list[str]]
    lexicon: Mapping[str, Sequence[Sequence[str]]]
    probabilities: Probabilities
    phones: list[str]
    cepstra: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> Chunk:
        """Read a chunk's folder."""
        content = read_json(folder / "chunk.json")
        bounds = np.concatenate([[0], np.cumsum(content["frames"])])
        cepstra = load_array(folder / "cepstra.npy")
        own = {name: content[name] for name in ("ids", "speakers", "words", "lexicon", "probabilities", "phones")}
        return cls(folder, **own, bounds=bounds, cepstra=cepstra)

    @property
    def voices(self) -> list[str]:
        """The different speakers."""
        return sorted(set(self.speakers))

    def utterances(self) -> Iterator[tuple[str, slice, list[str]]]:
        """Yield (id, frames, words) of each utterance."""
        for i, (name, words) in enumerate(zip(self.ids, self.words, strict=True)):
            yield name, slice(int(self.bounds[i]), int(self.bounds[i + 1])), words
