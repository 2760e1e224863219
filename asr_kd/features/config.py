"""Flags of ``python -m asr_kd.features``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Count, NotNegative, flag_name, within
from asr_kd.features.conditions import parse_condition
from asr_kd.features.front_end import VOWELS, vowel_filters
from asr_kd.features.mels import empty_filter

#: Flags that --extractor and --kind given replace.
FILTERS = ("num_filters", "num_ceps", "low_freq", "high_freq", "frame_length")


@dataclass
class Config(Workers):
    """Compute features of a prepared corpus every 10 ms, by default 40 log-mel filterbanks, without dither.

    Recordings that are damaged, silent or too short are skipped and listed in skipped_SPLIT.tsv.
    Log-mels and MFCCs are normalised by the frames of speech, so that silence around it and the level do not move them.
    """

    data: Path
    """Folder of the corpus (made by asr_kd.corpora)."""
    out: Path
    """Folder for the features."""
    kind: Literal["fbank", "mfcc", "given"] = "fbank"
    """Log-mel filterbanks; their cepstra (MFCC); or given: the features that the cuts of --data have already."""
    num_filters: Annotated[int, within(4)] = 40
    """Mel filters."""
    num_ceps: Count = 13
    """Cepstra of --kind mfcc."""
    sampling_rate: Annotated[int, within(4000, 768000)] = 16000
    """Rate in Hz that audio of any rate is converted to; a multiple of 100."""
    low_freq: NotNegative = 20.0
    """Lower end of the lowest filter in Hz."""
    high_freq: Annotated[float, within(-384_000, 384_000)] = -200.0
    """Upper end of the highest filter in Hz; from 0 down, relative to half of the sampling rate."""
    frame_length: Annotated[float, within(0.01, 0.2)] = 0.025
    """Length of the analysis windows in seconds."""
    extractor: Path | None = None
    """Instead, settings of any feature extractor that Lhotse has, with frames of 10 ms: a YAML file as
    "lhotse feat write-default-config" writes it."""
    normalise: Literal["speaker", "utterance", "none"] = "utterance"
    """Normalise by the speech of the utterance alone, or also by that of its speaker, which suits short utterances.
    Audio files, whose speakers are unknown, have the mean of all speakers for theirs, which counts a third as much."""
    speed_perturb: Annotated[tuple[float, ...], within(0.5, 2, different=True)] = ()
    """Add copies of the training split at these speeds, such as 0.9 1.1."""
    babble: Annotated[tuple[float, ...], within(-100, 100, different=True)] = ()
    """Add splits with background speakers at these SNRs in dB: train_noisy, dev_noisy (one per cut) and test_snrN."""
    degrade: tuple[str, ...] = ()
    """Add splits recorded under other conditions: train_degraded and dev_degraded, whose cuts have one each, and
    test_KIND-VALUE for each. band:HZ (nothing above), telephone (300 to 3,400 Hz, mu-law), gsm, mp3:KBPS, opus:KBPS,
    room:SECONDS (longest reverberation), gain:FACTOR, tight (cut at the first and last speech), margins:SECONDS."""
    degrade_copies: Count = 1
    """Degraded copies of each cut of train, each under another condition."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if 1 in self.speed_perturb:
            raise UserError("--speed-perturb 1 would add the recordings themselves again: leave it out")
        self._check_degraded()
        if self.sampling_rate % 100:
            raise UserError(
                f"--sampling-rate {self.sampling_rate} has no whole number of samples in 10 ms: give a multiple of 100"
            )
        if self.kind == "given" or self.extractor is not None:
            self._check_replaced()
        else:
            self._check_filters()

    def _check_degraded(self) -> None:
        conditions = [str(parse_condition(text)) for text in self.degrade]
        if len(set(conditions)) < len(conditions):
            raise UserError(f"--degrade is {' '.join(self.degrade)}, but its conditions must be different: correct it")
        if self.degrade_copies > max(len(conditions), 1):
            raise UserError(
                f"--degrade-copies {self.degrade_copies} would need as many conditions, but --degrade has "
                f"{len(conditions)}: lower it, or give more"
            )

    def _check_replaced(self) -> None:
        changed = {f.name for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        name, idle = "--extractor", [*FILTERS, "kind"]
        if self.kind == "given":
            name, idle = "--kind given", [*FILTERS, "extractor", "sampling_rate", "speed_perturb", "babble", "degrade"]
        if used := [field for field in idle if field in changed]:
            raise UserError(f"{flag_name(used[0])} has no effect with {name}: leave out one of them")

    def _check_filters(self) -> None:
        half = self.sampling_rate / 2
        high = self.high_freq if self.high_freq > 0 else half + self.high_freq
        if not self.low_freq < high <= half:
            raise UserError(
                f"the filters would reach from {self.low_freq:g} to {high:g} Hz, but audio at --sampling-rate "
                f"{self.sampling_rate} has nothing above {half:g} Hz: correct --low-freq or --high-freq"
            )
        if self.kind == "mfcc" and self.num_ceps > self.num_filters:
            raise UserError(f"--num-ceps {self.num_ceps} is more than --num-filters {self.num_filters}: correct it")
        window = int(self.frame_length * self.sampling_rate)
        empty = empty_filter(self.num_filters, self.low_freq, high, self.sampling_rate, window)
        if empty is not None:
            raise UserError(
                f"{self.num_filters} filters are too many: filter {empty + 1} is narrower than the distance of the "
                "frequencies of a window; lower --num-filters, or raise --frame-length or --low-freq"
            )
        chosen = vowel_filters(self.num_filters, self.low_freq, high)
        if chosen.stop == chosen.start:
            raise UserError(
                f"no filter lies between {VOWELS[0]:g} and {VOWELS[1]:g} Hz, where the level of speech is measured: "
                "correct --low-freq, --high-freq or --num-filters"
            )
