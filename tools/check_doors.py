"""Checks that the same corpus as a tree, a Kaldi data folder and Lhotse cuts gives the same senones, byte for byte.

    python tools/check_doors.py --corpus-dir an4/LibriSpeech --train train --dev test:1/2 --test test:2/2 \
        --lexicon an4/etc/an4.dic --arpa an4/etc/an4.lm --out /tmp/doors

The tree is used as it is.  Its audio becomes one WAV file per utterance for Kaldi, and one FLAC file per speaker, of
which the utterances are segments, for Lhotse.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import soundfile
from lhotse import CutSet, Recording, SupervisionSegment
from lhotse.cut import MonoCut

from asr_kd.common.cli import parse, run
from asr_kd.common.errors import UserError
from asr_kd.corpora.__main__ import main as corpora
from asr_kd.corpora.config import Config as CorporaConfig
from asr_kd.corpora.cuts import load_cuts
from asr_kd.features.__main__ import main as features
from asr_kd.features.config import Config as FeaturesConfig
from asr_kd.hmm.__main__ import main as hmm
from asr_kd.hmm.config import Config as HmmConfig
from asr_kd.hmm.graph.__main__ import main as graph
from asr_kd.hmm.graph.config import Config as GraphConfig
from asr_kd.lang.__main__ import main as lang
from asr_kd.lang.config import Config as LangConfig

SPLITS = ("train", "dev", "test")
Settings = TypeVar("Settings")
#: What must be the same, of each run.
COMPARED = (
    "gmm/senones/**/*.npy",
    "gmm/pdf_counts.npy",
    "gmm/tree",
    "gmm/*.mdl",
    "graph/HCLG.fst",
    "features/storage/**/*.npy",
)


@dataclass
class Config:
    """Run the first five stages on three forms of a corpus, and compare; exit with 1 unless they agree."""

    corpus_dir: Path
    """Root of a tree in LibriSpeech layout."""
    out: Path
    """Folder for the forms of the corpus and for the three runs."""
    train: tuple[str, ...]
    """Parts of the tree to train on; NAME:i/n is a group of speakers."""
    dev: tuple[str, ...]
    """Parts to tune on."""
    test: tuple[str, ...]
    """Parts to test on."""
    lexicon: Path | None = None
    """Lexicon instead of the CMU dictionary."""
    arpa: Path | None = None
    """Language model instead of one of the transcripts."""
    conf: Path = Path(__file__).parents[1] / "recipes/librispeech/conf/embedded.yaml"
    """Configuration of the stages."""
    jobs: int = 0
    """Number of processes (0: one per core)."""


def main(config: Config) -> None:
    own = {"train": config.train, "dev": config.dev, "test": config.test}
    run_stages(config, "tree", ["--corpus-dir", str(config.corpus_dir)], own)
    forms = {"kaldi": write_kaldi, "lhotse": write_lhotse}
    for form, write in forms.items():
        folder = config.out / "corpora" / form
        parts = {split: (str(write(folder, split, load_cuts(config.out / "tree/data", split))),) for split in SPLITS}
        run_stages(config, form, [], parts)
    digests = {form: digest(config.out / form) for form in ("tree", *forms)}
    for form, files in digests.items():
        if differing := sorted(name for name, _ in files.items() ^ digests["tree"].items()):
            raise UserError(f"{form} and tree differ in {len(differing)} files, such as {differing[0]}")
    senones = [np.load(path) for path in sorted((config.out / "tree/gmm/senones").rglob("*.npy"))]
    print(
        f"{', '.join(digests)}: the same {len(digests['tree'])} files, among them the senones of {len(senones)} "
        f"utterances ({sum(map(len, senones)):,} frames)"
    )


def run_stages(config: Config, form: str, flags: Sequence[str], parts: Mapping[str, tuple[str, ...]]) -> None:
    """The first five stages of the recipe, in OUT/FORM."""
    exp, jobs = config.out / form, ["--jobs", str(config.jobs)]
    named = [word for split, specs in parts.items() for word in (f"--{split}", *specs)]
    words = [
        word for name in ("lexicon", "arpa") if (path := getattr(config, name)) for word in (f"--{name}", str(path))
    ]

    def settings(kind: type[Settings], section: str, *flags: str) -> Settings:
        return parse(kind, ["--config", f"{config.conf}:{section}", *flags])

    data, gmm = ["--data", f"{exp}/data"], ["--lang", f"{exp}/lang"]
    corpora(settings(CorporaConfig, "corpora", *flags, *named, *jobs, "--out", f"{exp}/data"))
    features(settings(FeaturesConfig, "features", *data, *jobs, "--out", f"{exp}/features"))
    lang(settings(LangConfig, "lang", *data, *words, "--out", f"{exp}/lang"))
    hmm(settings(HmmConfig, "hmm", "--features", f"{exp}/features", *gmm, *jobs, "--out", f"{exp}/gmm"))
    graph(settings(GraphConfig, "graph", *gmm, "--gmm", f"{exp}/gmm", "--out", f"{exp}/graph"))


def write_kaldi(folder: Path, split: str, cuts: Iterable[MonoCut]) -> Path:
    """Write a Kaldi data folder with a WAV file of 16 bits for each cut; return its path."""
    (folder / split / "wav").mkdir(parents=True, exist_ok=True)
    lines: dict[str, list[str]] = defaultdict(list)
    for number, cut in enumerate(cuts):
        wav = folder / split / "wav" / f"{number}.wav"
        soundfile.write(wav, *_samples(cut), subtype="PCM_16")
        spoken = cut.supervisions[0]
        for name, value in (("wav.scp", wav.absolute()), ("text", spoken.text), ("utt2spk", spoken.speaker)):
            lines[name].append(f"{cut.id} {value}\n")
    for name, content in lines.items():
        (folder / split / name).write_text("".join(content), encoding="utf-8")
    return folder / split


def write_lhotse(folder: Path, split: str, cuts: Iterable[MonoCut]) -> Path:
    """Write a FLAC file for each speaker, and a manifest of the cuts in them; return its path."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    spoken: dict[str, list[MonoCut]] = defaultdict(list)
    for cut in cuts:
        spoken[cut.supervisions[0].speaker].append(cut)
    segments: list[MonoCut] = []
    for speaker, members in spoken.items():
        audio = [_samples(cut) for cut in members]
        path, rate = folder / split / f"{speaker}.flac", audio[0][1]
        soundfile.write(path, np.concatenate([samples for samples, _ in audio]), rate, subtype="PCM_16")
        recording, start = Recording.from_file(path.absolute()), 0
        for cut, (samples, _) in zip(members, audio, strict=True):
            seconds = len(samples) / rate
            segment = SupervisionSegment(cut.id, speaker, 0, seconds, 0, cut.supervisions[0].text, speaker=speaker)
            segments.append(MonoCut(cut.id, start / rate, seconds, 0, [segment], recording=recording))
            start += len(samples)
    path = folder / f"cuts_{split}.jsonl.gz"
    CutSet.from_cuts(segments).to_file(path)
    return path


def _samples(cut: MonoCut) -> tuple[np.ndarray, int]:
    """The samples of a cut, a whole recording, as they are in its file; and their rate."""
    samples, rate = soundfile.read(cut.recording.sources[0].source, dtype="int16")
    return samples, rate


def digest(exp: Path) -> dict[str, str]:
    """Checksums of the files of a run that must be the same."""
    paths = sorted(path for pattern in COMPARED for path in exp.glob(pattern))
    return {str(path.relative_to(exp)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


if __name__ == "__main__":
    run(Config, main)
