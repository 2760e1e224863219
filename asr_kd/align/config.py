"""Flags of ``python -m asr_kd.align``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Share

Format = Literal["ctm", "textgrid", "json"]


@dataclass
class Config(Workers):
    """Align recordings with their transcripts: words, phones and senones with times, and a score for every word.

    python -m asr_kd.align --model DIR [DIR ...] --gmm DIR --lang DIR --features DIR --out DIR RECORDING [RECORDING ...]

    Each RECORDING is an audio file, whose transcript is next to it (NAME.txt or NAME.lab) or in --text, or a folder of
    such pairs.  For each, a line path<TAB>score<TAB>doubtful words is printed.  The exit status is the number of
    recordings that could not be aligned, at most 100.
    """

    model: tuple[Path, ...]
    """Folder of a network, folders of several networks (their posteriors are averaged), or folder of the GMM."""
    lang: Path
    """Folder filled by python -m asr_kd.lang, with the pronunciations."""
    features: Path
    """Folder of the features, with their normalisation."""
    out: Path
    """Folder for words.ctm, phones.ctm, senones.ctm; NAME.TextGrid and NAME.json of each recording; and guessed.tsv,
    the words that the lexicon lacks with the pronunciations that were guessed."""
    recordings: Positional[tuple[Path, ...]]
    """Audio files of any rate and format that libsndfile reads, or folders of them."""
    gmm: Path | None = None
    """Folder filled by python -m asr_kd.hmm, with the decision tree and the transition model; default: --model."""
    text: Path | None = None
    """File with the transcript of the one recording."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How the posteriors of an ensemble are averaged."""
    formats: tuple[Format, ...] = ("ctm", "textgrid", "json")
    """What is written."""
    doubtful: Share = 0.05
    """Words with a score below this are doubtful: perhaps they are not what was said.  The score of a word is the
    geometric mean over its frames of the probability that the network gives its phones, all senones being equally
    probable beforehand."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.recordings:
            raise UserError("there is nothing to align: name audio files or folders of them")
        if self.text and (len(self.recordings) > 1 or self.recordings[0].is_dir()):
            raise UserError("--text is the transcript of one recording: put those of several next to them (NAME.txt)")
