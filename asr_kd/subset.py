"""``python -m asr_kd.subset``: a folder of cuts again, with a part of its training role."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.cli import run
from asr_kd.copies import original
from asr_kd.storage import MARK, Stage, UserError, copy_file, read_json, write_json

TRAIN = "cuts_train.jsonl.gz"


@dataclass
class Config:
    """Copy a folder of cuts, keeping a part of the training role: an utterance always with its copies at other speeds.

    Features, senones, normalisation and the counts of senones stay those of the whole folder.
    """

    cuts: Path
    """Folder with cuts_ROLE.jsonl.gz (made by asr_kd.features or asr_kd.hmm)."""
    out: Path
    """Folder of the same form."""
    share: float = 1.0
    """Keep this share of the utterances, drawn at random: a smaller share is a part of a larger one's draw."""
    speakers: str = ""
    """Keep the i-th of n groups of speakers with about as many utterances each: i/n."""
    seed: int = 0
    """Of the draw."""


def main(config: Config) -> None:
    if not 0 < config.share <= 1:
        raise UserError(f"--share {config.share:g} must lie above 0 and be 1 at most: correct the flag")
    stage = Stage("subset", config.out, config, [config.cuts])
    if not stage.begin():
        return
    from asr_kd.corpora.manifests import jsonl_writer, read_jsonl

    if not (config.cuts / TRAIN).is_file():
        raise UserError(f"{config.cuts} has no {TRAIN}: give a folder of asr_kd.features or asr_kd.hmm")
    kept = _choice(config, read_jsonl(config.cuts / TRAIN))
    figures = {"utterances": 0, "frames": 0, "speakers": len(set(kept.values()))}
    with jsonl_writer(config.out / TRAIN) as add:
        for cut in read_jsonl(config.cuts / TRAIN):
            if original(cut["id"]) in kept:
                add(cut)
                figures["utterances"] += 1
                figures["frames"] += cut["features"]["num_frames"]
    for path in config.cuts.iterdir():
        if path.is_file() and path.name not in (MARK, TRAIN):
            copy_file(path, config.out / path.name)
    if (config.out / "hmm.json").is_file():
        about = read_json(config.out / "hmm.json")
        about["roles"]["train"] |= {"utterances": figures["utterances"], "frames": figures["frames"]}
        write_json(config.out / "hmm.json", about)
    stage.finish(**figures)
    print(f"train: {figures['utterances']} cuts, {figures['frames']} frames, {figures['speakers']} speakers")


def _choice(config: Config, cuts: Iterator[dict[str, Any]]) -> dict[str, str]:
    """Utterances to keep, each with its speaker."""
    import numpy as np

    from asr_kd.corpora.layout import speaker_groups
    from asr_kd.corpora.parts import read_group

    found = {cut["id"]: cut["supervisions"][0]["speaker"] for cut in cuts if cut["id"] == original(cut["id"])}
    if config.speakers:
        group, groups = read_group(config.speakers)
        own = speaker_groups(Counter(found.values()), groups)[group - 1]
        found = {name: speaker for name, speaker in found.items() if speaker in own}
    names = sorted(found)
    drawn = np.random.default_rng(config.seed).permutation(len(names))[: round(config.share * len(names))]
    if not len(drawn):
        raise UserError(f"a share of {config.share:g} of {len(names)} utterances is none: raise --share")
    return {names[index]: found[names[index]] for index in drawn}


if __name__ == "__main__":
    run(Config, main)
