"""Flags of ``python -m asr_kd.score``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.settings import Seed, Settings, within

Unit = Literal["utterance", "speaker"]


@dataclass
class Config(Settings):
    """Word error rates with 95 % bootstrap intervals, paired comparisons, and frame accuracies by system.

    An experiment:    --exp DIR --systems FILE --out DIR
    Decoded folders:  --hyp DIR [DIR ...] --cuts DIR --out DIR [--splits SPLIT ... --pairs A:B ...]
    """

    out: Path
    """Folder for score.json and score.md."""
    exp: Path | None = None
    """Folder of an experiment."""
    systems: Path | None = None
    """YAML file with the systems of --exp (recipes/librispeech/conf/systems.yaml)."""
    variables: tuple[str, ...] = ()
    """Values of variables of --systems, NAME=VALUE each."""
    hyp: tuple[Path, ...] = ()
    """Instead of --exp, decoded folders (with hyp_SPLIT.tsv); each folder's name is the name of its system."""
    cuts: Path | None = None
    """Folder with the cuts_SPLIT.jsonl.gz that were decoded, whose transcripts are the reference; default:
    EXP/features."""
    splits: tuple[str, ...] = ("test",)
    """Splits of --hyp to score; of --exp, all decoded splits are scored."""
    pairs: tuple[str, ...] = ()
    """Systems of --hyp to compare, A:B each: by how much the WER of B differs from that of A."""
    bootstrap_by: Unit = "utterance"
    """Unit that the bootstrap draws with replacement: utterances, as is usual, or speakers, whose utterances are not
    independent of each other (wider, more honest intervals; a rough guide with fewer than about ten speakers)."""
    replications: Annotated[int, within(100)] = 10_000
    """Number of bootstrap draws."""
    seed: Seed = 0
    """Seed of the bootstrap draws."""
