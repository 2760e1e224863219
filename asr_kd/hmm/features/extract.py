"""Features of GMMs, written as the features stage writes its own."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.corpora.cuts import load_cuts, splits_of
from asr_kd.corpora.manifests import count_lines
from asr_kd.features.extraction import Made, Make, write_features
from asr_kd.features.front_end import FrontEnd
from asr_kd.hmm.corpus import speaker_of
from asr_kd.hmm.features.config import Config
from asr_kd.hmm.scores import TRANSFORMS, GmmScorer, split_transforms

#: The type of the features, as Kaldi's and Lhotse's are named.
FMLLR = "kaldi-fmllr"


def extract(config: Config) -> dict[str, dict[str, int]]:
    """Fill ``config.out``; returns {split: {cuts, frames, skipped}}.

    Raises:
        UserError: the GMMs have no transforms, or the speakers of a split have none.
    """
    source, trained = FrontEnd.load(config.features), split_transforms(config.gmm, "train")
    if not trained.is_file():
        raise UserError(f"{config.gmm} has no transforms of speakers: train the GMMs without --no-sat")
    dimension = len(GmmScorer(config.gmm, trained).transform)
    front_end = replace(source, extractor=FMLLR, num_features=dimension, settings=None, unusual={}, normalise="none")

    def splits() -> Iterator[tuple[str, Iterator[MonoCut], int, Make]]:
        for split in splits_of(config.features):
            archive = trained if split == "train" else config.adapted / TRANSFORMS
            make = partial(_adapted, config.gmm.resolve(), archive.resolve())
            total = count_lines(config.features / f"cuts_{split}.jsonl.gz")
            yield split, load_cuts(config.features, split), total, make

    with config.executor() as executor:
        return write_features(config.out, front_end, splits(), executor)


@functools.lru_cache(maxsize=1)
def _scorer(gmm: Path, archive: Path) -> GmmScorer:
    return GmmScorer(gmm, archive)


def _adapted(gmm: Path, archive: Path, cut: MonoCut) -> Made:
    """A cut and its features, or why it has none."""
    scorer = _scorer(gmm, archive)
    if speaker_of(cut) not in scorer.transforms:
        return f"{archive} has no transform of its speaker: run python -m asr_kd.hmm.adapt with its split"
    return cut, scorer.features(cut)
