"""Transforms of speakers by the words that were recognised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lhotse.cut import MonoCut
from lhotse.utils import fastcopy

from asr_kd.common.errors import UserError
from asr_kd.common.storage import copy_file, read_json
from asr_kd.common.text import read_lines
from asr_kd.corpora.cuts import load_cuts
from asr_kd.hmm.adapt.config import Config
from asr_kd.hmm.scores import TRANSFORMS, write_transforms
from asr_kd.hmm.speakers import transforms_of
from asr_kd.hmm.store import copy_models

#: The second round aligns with the transforms of the first.
ROUNDS = 2


def adapt(config: Config) -> dict[str, int]:
    """Fill ``config.out``; returns the figures for the completion mark.

    Raises:
        UserError: a file is missing or damaged, or nothing was recognised.
    """
    out, gmm, lang = config.out.resolve(), config.gmm.resolve(), config.lang.resolve()
    words = {split: _recognised(config.decoded / f"hyp_{split}.tsv") for split in config.splits}
    if not any(any(texts.values()) for texts in words.values()):
        raise UserError(f"{config.decoded} has no words in {', '.join(config.splits)}: there is nothing to adapt to")

    def cuts() -> Iterator[MonoCut]:
        for split in config.splits:
            for cut in load_cuts(config.features, split):
                if text := words[split].get(cut.id):
                    yield fastcopy(cut, supervisions=[fastcopy(cut.supervisions[0], text=text)])

    copy_models(gmm, out)
    copy_file(gmm / "hmm.json", out / "hmm.json")
    silence = read_json(gmm / "hmm.json")["silence_pdfs"]
    with config.executor() as executor:
        for number in range(ROUNDS):
            earlier = out / TRANSFORMS if number else None
            name = f"fMLLR, round {number + 1} of {ROUNDS}"
            transforms = transforms_of(executor, cuts, gmm, lang, silence, name, earlier)
            write_transforms(out / TRANSFORMS, transforms)
    print(f"{len(transforms):,} speakers", flush=True)
    return {"speakers": len(transforms)}


def _recognised(path: Path) -> dict[str, str]:
    """Words by utterance id, from lines id<TAB>words."""
    if not path.is_file():
        raise UserError(f"{path} is missing: decode this split first (python -m asr_kd.decode)")
    lines = (line.partition("\t") for line in read_lines(path))
    return {name: words for name, _, words in lines}
