"""Training data on disk, in chunks of utterances that workers take one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from asr_kd.common.storage import atomic_open, read_json, save_array
from asr_kd.hmm.cepstra import CepstralMeans
from asr_kd.hmm.viterbi import Lexicon
from asr_kd.hmm.words import Words

if TYPE_CHECKING:
    from lhotse.cut import MonoCut


@dataclass(frozen=True)
class ChunkJob:
    """Utterances whose features one worker prepares."""

    cuts: Sequence[MonoCut]
    folder: Path
    features: Path
    lang: Path
    cmn: str  # "speaker" or "utterance"


def prepare_chunk(job: ChunkJob) -> int:
    """Write cepstra.npy (T, 13), chunk.json (ids, frames, words and pronunciations); returns the frames."""
    means, words = CepstralMeans.load(job.features, job.cmn), Words.load(job.lang)
    job.folder.mkdir(parents=True, exist_ok=True)
    cuts = [cut for cut in job.cuts if cut.supervisions[0].text]
    parts = [means.cepstra(cut) for cut in cuts]
    texts = [cut.supervisions[0].text.split() for cut in cuts]
    save_array(job.folder / "cepstra.npy", np.concatenate(parts))
    with atomic_open(job.folder / "chunk.json") as file:
        json.dump(
            {
                "ids": [cut.id for cut in cuts],
                "frames": [len(part) for part in parts],
                "words": texts,
                "lexicon": words.lexicon(texts)[0],
                "phones": words.phones,
            },
            file,
        )
    return sum(map(len, parts))


@dataclass(frozen=True)
class Chunk:
    """What ``prepare_chunk`` wrote."""

    ids: list[str]
    bounds: np.ndarray  # (U + 1,) first frame of each utterance
    words: list[list[str]]
    lexicon: Lexicon
    phones: list[str]  # index = id
    cepstra: np.ndarray  # (T, 13)

    @classmethod
    def load(cls, folder: Path) -> Chunk:
        description = read_json(folder / "chunk.json")
        bounds = np.concatenate([[0], np.cumsum(description["frames"])])
        values = np.load(folder / "cepstra.npy", allow_pickle=False)
        known = description["words"], description["lexicon"], description["phones"]
        return cls(description["ids"], bounds, *known, values)

    def utterances(self) -> Iterator[tuple[str, slice, list[str]]]:
        """(id, frames, words) of each."""
        for i, (name, words) in enumerate(zip(self.ids, self.words, strict=True)):
            yield name, slice(int(self.bounds[i]), int(self.bounds[i + 1])), words
