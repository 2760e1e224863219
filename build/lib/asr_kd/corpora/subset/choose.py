"""Chooses utterances of a training split."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import source_id
from asr_kd.corpora.parts import read_group
from asr_kd.corpora.subset.config import Config
from asr_kd.corpora.utterances import speaker_groups


def choose_utterances(config: Config, cuts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The utterances to keep, each with its speaker.

    Raises:
        UserError: there are none, or ``--speakers`` is malformed.
    """
    speakers = {cut["id"]: cut["supervisions"][0]["speaker"] for cut in cuts if cut["id"] == source_id(cut)}
    if config.speakers:
        group, groups = read_group(config.speakers)
        members = speaker_groups(Counter(speakers.values()), groups)[group - 1]
        speakers = {name: speaker for name, speaker in speakers.items() if speaker in members}
    names = sorted(speakers)
    order = np.random.default_rng(config.seed).permutation(len(names))[: round(config.share * len(names))]
    if not len(order):
        raise UserError(f"a share of {config.share:g} of {len(names)} utterances is none: raise --share")
    return {names[index]: speakers[names[index]] for index in order}
