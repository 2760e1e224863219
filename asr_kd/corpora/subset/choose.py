"""``python -m asr_kd.subset``: a folder of cuts again, with a part of its training split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import source_id
from asr_kd.corpora.librispeech import speaker_groups
from asr_kd.corpora.parts import read_group
from asr_kd.corpora.subset.config import Config

TRAIN = "cuts_train.jsonl.gz"


def _choice(config: Config, cuts: Iterator[dict[str, Any]]) -> dict[str, str]:
    """Utterances to keep, each with its speaker."""
    found = {cut["id"]: cut["supervisions"][0]["speaker"] for cut in cuts if cut["id"] == source_id(cut)}
    if config.speakers:
        group, groups = read_group(config.speakers)
        own = speaker_groups(Counter(found.values()), groups)[group - 1]
        found = {name: speaker for name, speaker in found.items() if speaker in own}
    names = sorted(found)
    drawn = np.random.default_rng(config.seed).permutation(len(names))[: round(config.share * len(names))]
    if not len(drawn):
        raise UserError(f"a share of {config.share:g} of {len(names)} utterances is none: raise --share")
    return {names[index]: found[names[index]] for index in drawn}
