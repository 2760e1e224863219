"""Flags of ``python -m asr_kd.corpora.shar``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Count


@dataclass
class Config(Workers):
    """Write a folder of aligned cuts as Lhotse Shar; then train with --cuts OUT."""

    cuts: Path
    """Folder with cuts_SPLIT.jsonl.gz that carry features and senones (made by asr_kd.hmm)."""
    out: Path
    """Folder for the list of shards, copies of the other files of --cuts, and the shards themselves without --url."""
    url: str = ""
    """Address for the shards, such as s3://BUCKET/PATH: any that fsspec can open."""
    splits: tuple[str, ...] = ("train", "dev")
    """Splits to write."""
    shard_frames: Count = 100_000
    """Approximate number of frames per shard (10 ms each); less if the split would have fewer than about 64 shards."""
