"""Flags of ``python -m asr_kd.decode``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import Workers
from asr_kd.common.settings import Count, Natural, Positive, within
from asr_kd.common.storage import RUN_ONLY

Search = Literal["k2", "kernel"]


@dataclass
class Config(Workers):
    """Decode prepared splits and write the words to --out, or decode audio FILES and print the words.

    Prepared splits:  --model DIR [DIR ...] --graph DIR --features DIR --splits dev test --out DIR
    Audio files:      --model DIR [DIR ...] --graph DIR --features DIR [--tuned FILE] FILE [FILE ...]
    The same, short:  EXP FILE [FILE ...]   with the folder of an experiment, or a bundle, as the first argument

    The flags of further decodings may follow, each after --and.  They run one after the other, with the same search
    processes, and with --jobs and --scheduler of the first.
    """

    model: tuple[Path, ...]
    """Folder of a network, folders of several networks (their posteriors are averaged), or folder of the GMM."""
    graph: Path
    """Folder of the graph (HCLG.fst, words.txt, graph.json)."""
    features: Path
    """Folder of the features, with their normalisation."""
    files: Positional[tuple[Path, ...]] = field(default=(), metadata=RUN_ONLY)
    """Audio files of any sampling rate, mono or stereo.  For each, a line path<TAB>words is printed to stdout.
    The exit status is the number of files that could not be decoded, at most 100."""
    channel: Natural = field(default=0, metadata=RUN_ONLY)
    """Channel of the audio files that is decoded, from 1; 0: the mean of all."""
    format: Literal["text", "jsonl", "ctm", "srt", "vtt"] = field(default="text", metadata=RUN_ONLY)
    """What is printed for audio files: path<TAB>words; a JSON object per file, also for those that failed, with the
    keys file, words, seconds and error, and with --times also times; a line of a CTM per word (path, channel, begin,
    duration, word, confidence); or SubRip or WebVTT subtitles.  With --out DIR, subtitles are written to DIR/NAME.srt
    or .vtt, as those of several files must be."""
    mean: Literal["arithmetic", "geometric"] = "arithmetic"
    """How the posteriors of an ensemble are averaged."""
    specialists: Path | None = None
    """Folder of specialists (written by asr_kd.specialists.train) that are combined with the one network of --model."""
    top_k: Count = 1
    """Activate the specialists that cover the generalist's top-k senones."""
    cuts: Path | None = None
    """Folder with cuts_SPLIT.jsonl.gz; default: --features, which also has the utterances without an alignment."""
    splits: tuple[str, ...] = ("dev", "test")
    """Splits to decode."""
    out: Path | None = field(default=None, metadata=RUN_ONLY)
    """Folder for hyp_SPLIT.tsv, failed_SPLIT.tsv, decode.json; with --tune-on also tuned.json and sweep_SPLIT.json; or
    for the subtitles of audio files."""
    tune_on: str = ""
    """Split on which the acoustic scale and word insertion penalty with the fewest word errors are chosen first."""
    tuned: Path | None = None
    """tuned.json of another run; its values replace --acoustic-scale and --insertion-penalty."""
    acoustic_scale: Positive = 0.07
    """Factor of the acoustic log-likelihoods; with --tune-on, the factor for the first lattices."""
    insertion_penalty: float = 0.0
    """Word insertion penalty: subtracted from the score of a path (natural logarithm) for each word."""
    scales: Annotated[tuple[float, ...], within(above=0, filled=True, different=True)] = (
        0.03, 0.04, 0.05, 0.06, 0.07, 0.08, 0.1, 0.12, 0.15, 0.2,
    )  # fmt: skip
    """Acoustic scales that --tune-on tries."""
    penalties: Annotated[tuple[float, ...], within(filled=True, different=True)] = (-1.0, -0.5, 0.0, 0.5, 1.0)
    """Word insertion penalties that --tune-on tries."""
    beam: Positive = 13.0
    """Search beam: paths more than this below the best path of the same frame (scaled natural logarithm) are pruned."""
    max_active: Count = 2500
    """Maximum number of active states per frame; must exceed --min-active."""
    min_active: Natural = 30
    """Minimum number of active states per frame, whatever the beam."""
    lattice_beam: Positive = 4.0
    """Lattice arcs without a path within this of the best path are pruned; for --tune-on, --lattices, --rescore,
    --mbr and --times."""
    lattices: bool = False
    """Also write lattices_SPLIT.gz, a Kaldi text archive: source, target, pdf + 1, word, graph cost,acoustic cost."""
    rescore: Path | None = None
    """ARPA n-gram model (also .gz) of the graph's words, or pieces.  Its weights replace those of the graph's language
    model in the lattices, and --tune-on then tunes for them.  A --lattice-beam of 6 or more gives it more to choose
    from."""
    words: Path | None = None
    """File of words and phrases that are recognised too, a line each: words, phones (of one word) and a weight (natural
    logarithm; 0: as probable as the average word), separated by tabs; the last two may be missing."""
    mbr: bool = False
    """Minimum Bayes risk: choose the words with the fewest expected errors over the lattice instead of those of the
    best path, and write their confidences to confidences_SPLIT.tsv.  --tune-on looks at best paths."""
    times: bool = False
    """Find begin, end and confidence of every word, and write them to words_SPLIT.ctm; or, for audio files, into the
    JSON objects of --format jsonl (ctm, srt and vtt need no --times).  With --tune-on, confidences are calibrated, so
    that of the words with 0.8 eight of ten are right, and tuned.json keeps the map for other decodings."""
    batch: Count = field(default=4, metadata=RUN_ONLY)
    """Maximum number of utterances per search; on a CPU a larger number costs memory and saves no time."""
    search: Search = field(default="k2", metadata=RUN_ONLY)
    """What searches: k2, or a kernel that this machine's C++ compiler builds, which finds the same lattices, to the
    bit, in a fifth of the time on a CPU."""
    k2_python: Path | None = field(default=None, metadata=RUN_ONLY)
    """Interpreter that has k2; default: $ASR_KD_K2_PYTHON, else .venv-k2 next to the package, else this one."""
    in_process: bool = field(default=False, metadata=RUN_ONLY)
    """Use k2 in this process, which must have it; a failed k2 check then aborts the whole process."""
    cache: Path | None = field(default=None, metadata=RUN_ONLY)
    """Folder for graphs converted for k2; default: the folder GRAPH.k2 next to --graph."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_active <= self.min_active:
            raise UserError(f"--max-active {self.max_active} must exceed --min-active {self.min_active}")
        if self.words and self.rescore:
            raise UserError("--rescore knows no probabilities of the words of --words: leave out one of the two flags")
        if self.tune_on == "test":
            raise UserError("tuning on test makes its WER worthless: name another split by --tune-on")
        if self.tune_on and self.tuned:
            raise UserError("--tune-on chooses values and --tuned gives them: leave out one of the two flags")

    @property
    def with_times(self) -> bool:
        """Whether words need times."""
        return self.times or (bool(self.files) and self.format in ("ctm", "srt", "vtt"))
