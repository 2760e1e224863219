"""Flags of ``python -m asr_kd.hmm.import_alignments``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import Workers
from asr_kd.common.settings import within


@dataclass
class Config(Workers):
    """Add alignments made elsewhere to the cuts: Kaldi's pdf-ids or transition-ids per frame, or phones with times.

    Utterances are skipped and listed in skipped_SPLIT.tsv if they have no alignment, or one that is more than 3 frames
    longer or shorter than the features (phones: more than 0.03 s longer; where there is no phone, there is silence).
    """

    features: Path
    """Folder filled by python -m asr_kd.features."""
    out: Path
    """Output folder for the aligned cuts."""
    ark: tuple[Path, ...] = ()
    """Kaldi tables of integer vectors indexed by utterance: .ark, .ark.gz (or ali.1.gz), .scp."""
    ctm: tuple[Path, ...] = ()
    """Instead, CTM files of phones: lines ID CHANNEL START DURATION PHONE, in seconds.  ID is an utterance, or a
    recording, with times in it."""
    textgrids: tuple[Path, ...] = ()
    """Instead, TextGrids called ID.TextGrid, as the Montreal Forced Aligner writes them: files, or folders of them."""
    tier: str = "phones"
    """Tier of the TextGrids that has the phones, also as "SPEAKER - TIER"."""
    thirds: bool = False
    """Give each phone of --ctm or --textgrids three senones, for its first, second and last third, instead of one."""
    lang: Path | None = None
    """Folder of asr_kd.lang whose phones those of --ctm or --textgrids are: asr_kd.hmm.graph can then compile a
    decoding graph.  Without it the senones serve for training and frame accuracy."""
    model: Path | None = None
    """Kaldi's .mdl (binary) if the vectors are its transition-ids, as in ali.*.gz, instead of pdf-ids."""
    tree: Path | None = None
    """Kaldi's tree for --model; with both, python -m asr_kd.hmm.graph can compile a decoding graph."""
    phones: Path | None = None
    """Kaldi's phones.txt with the names of the model's phones; names that begin with SIL, SPN or NSN are silence."""
    silence_pdfs: Annotated[tuple[int, ...], within(0)] = ()
    """pdf-ids of silence; if not given, those of the silence phones in --phones."""


def check(config: Config) -> None:
    """Check the flags before anything is read.

    Raises:
        UserError: the flags contradict each other.
    """
    if sum(map(bool, (config.ark, config.ctm, config.textgrids))) != 1:
        raise UserError("give the alignments in one form: --ark, --ctm or --textgrids")
    if config.phones and not config.model:
        raise UserError("--phones needs --model: pdf-ids alone do not determine the phone")
    if config.ark and (config.thirds or config.lang):
        raise UserError("--thirds and --lang are for phones with times (--ctm, --textgrids), not for --ark")
    if not config.ark and (config.model or config.tree or config.silence_pdfs):
        raise UserError("--model, --tree, --phones and --silence-pdfs are for --ark: leave them out")
