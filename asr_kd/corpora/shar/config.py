"""Flags of ``python -m asr_kd.corpora.shar``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from asr_kd.common.parallel import Workers


@dataclass
class Config(Workers):
    """Write a folder of aligned cuts as Lhotse Shar; train with --cuts OUT then."""

    cuts: Path
    """Folder with cuts_SPLIT.jsonl.gz that carry features and senones (made by asr_kd.hmm)."""
    out: Path
    """Folder for the list of shards and copies of what else --cuts holds; and for the shards, without --url."""
    url: str = ""
    """Where the shards go, as s3://BUCKET/PATH or any other address that fsspec knows."""
    splits: tuple[str, ...] = ("train", "dev")
    """Splits to write."""
    shard_frames: int = 100_000
    """Frames (10 ms each) of a shard, about; fewer where a split would have less than about 64 shards."""
