"""Flags of ``python -m asr_kd.decode``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import Workers
from asr_kd.common.storage import RUN_ONLY


@dataclass
class Config(Workers):
    """Search the graph with k2 and write the words (--out), or print those of audio FILES.

    Prepared splits:  --model DIR [DIR ...] --graph DIR --features DIR --splits dev test --out DIR
    Audio files:     --model DIR [DIR ...] --graph DIR --features DIR [--tuned FILE] FILE [FILE ...]

    After --and, the flags of another decoding may follow: one after the other, with the same search processes.
    --jobs and --scheduler are those of the first.
    """

    model: tuple[Path, ...]
    """A network's folder, several for an ensemble (their posteriors are averaged), or the GMM's folder."""
    graph: Path
    """Folder of the graph (HCLG.fst, words.txt, graph.json)."""
    features: Path
    """Folder of the features, with their normalisation."""
    files: Positional[tuple[Path, ...]] = field(default=(), metadata=RUN_ONLY)
    """Audio files of any rate, mono or stereo: prints path<TAB>words for each, and nothing else, to stdout."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How an ensemble's posteriors are averaged."""
    specialists: Path | None = None
    """Folder that asr_kd.specialists.train filled: specialists that have a say beside the one network of --model."""
    likeliest: int = 1
    """So many of that network's likeliest senones choose which specialists have a say."""
    cuts: Path | None = None
    """Folder with cuts_SPLIT.jsonl.gz; default: --features, which has every utterance, aligned or not."""
    splits: tuple[str, ...] = ("dev", "test")
    """Splits to decode."""
    out: Path | None = field(default=None, metadata=RUN_ONLY)
    """Folder for hyp_SPLIT.tsv, failed_SPLIT.tsv, tuned.json, sweep_SPLIT.json, decode.json."""
    tune_on: str = ""
    """Split on which acoustic scale and word insertion penalty are chosen first (fewest word errors)."""
    tuned: Path | None = None
    """tuned.json of another run: its values instead of --acoustic-scale and --insertion-penalty."""
    acoustic_scale: float = 0.07
    """Factor of the acoustic log-likelihoods; with --tune-on, that of the lattices it starts from."""
    insertion_penalty: float = 0.0
    """Taken off a path's score (natural logarithm) for each word."""
    scales: tuple[float, ...] = (0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.12, 0.15, 0.2)
    """Acoustic scales that --tune-on tries."""
    penalties: tuple[float, ...] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    """Word insertion penalties that --tune-on tries."""
    beam: float = 13.0
    """Paths worse than the best of their frame by more (scaled natural logarithm) are dropped."""
    max_active: int = 2500
    """States kept a frame, at most; must exceed --min-active."""
    min_active: int = 30
    """States kept a frame, at least, whatever the beam."""
    lattice_beam: float = 4.0
    """Lattice arcs on no path within this of the best one are dropped (tuning and --lattices)."""
    lattices: bool = False
    """Also write lattices_SPLIT.gz, Kaldi's text archive: from, to, pdf + 1, word, graph cost,acoustic cost."""
    batch: int = field(default=4, metadata=RUN_ONLY)
    """Utterances searched together, at most; on a CPU more save no time, but cost memory."""
    k2_python: Path | None = field(default=None, metadata=RUN_ONLY)
    """Interpreter with k2; default: $ASR_KD_K2_PYTHON, else .venv-k2 beside the package, else this one."""
    in_process: bool = field(default=False, metadata=RUN_ONLY)
    """Search in this process (k2 must be importable here): no worker that may die alone."""
    cache: Path | None = field(default=None, metadata=RUN_ONLY)
    """Where graphs converted for k2 are kept; default: the folder GRAPH.k2 beside --graph."""

    def __post_init__(self) -> None:
        if self.max_active <= self.min_active:
            raise UserError(f"--max-active {self.max_active} must exceed --min-active {self.min_active}")
        if min((self.acoustic_scale, self.beam, self.lattice_beam, *self.scales)) <= 0:
            raise UserError("--acoustic-scale, --scales, --beam and --lattice-beam must be positive")
        if self.likeliest < 1:
            raise UserError("--likeliest must be positive: correct the flag")
        if not self.scales or not self.penalties or self.batch < 1:
            raise UserError("--scales and --penalties need at least one value each, --batch at least 1")
        if self.tune_on == "test":
            raise UserError("tuning on test makes its error rate worthless: name a split kept for tuning by --tune-on")
        if self.tune_on and self.tuned:
            raise UserError("--tune-on finds values and --tuned gives them: leave one of them out")
