"""Checks that the words of a recording do not depend on the silence or noise around it, or its level.

python tools/check_surroundings.py --exp recipes/librispeech/exp/embedded
"""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
from kaldialign import edit_distance

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.corpora.cuts import load_cuts
from asr_kd.features.front_end import FrontEnd
from asr_kd.lang.words import Words
from asr_kd.score.wer import read_references

PADDING = (0.3, 1.0, 2.0)  # seconds
NOISE_DB = -60.0  # relative to full scale
GAINS = (0.001, 0.01, 0.1, 10.0, 30.0)
JOINED_SECONDS = 600.0

Samples = np.ndarray
Condition = Callable[[Samples, np.random.Generator], Samples]


@dataclasses.dataclass
class Config:
    """Decode a split as audio files, as they are and changed; exit with 1 if the WER moves by more than --tolerance.

    The files hold floating-point samples, so that a gain clips nothing.  Recordings of several speakers, joined to ten
    minutes, are for information: they are normalised in segments, which the utterances do not always agree with.
    """

    exp: Path
    """Folder of an experiment of the recipe."""
    model: str = "student/seed-0"
    """Network in that folder."""
    split: str = "test"
    """Split to decode."""
    tolerance: float = 1.0
    """Largest difference of the WER in points."""


def surround(samples: Samples, generator: np.random.Generator, rate: int, seconds: float, db: float | None) -> Samples:
    """Silence, or white noise at ``db`` relative to full scale, on either side of the samples."""
    shape = (2, round(seconds * rate))
    margin = np.zeros(shape) if db is None else 10 ** (db / 20) * generator.standard_normal(shape)
    return np.concatenate([margin[0], samples, margin[1]])


def conditions(rate: int) -> dict[str, Condition]:
    """What is done to a recording at ``rate`` Hz, by name."""
    changes: dict[str, Condition] = {"as it is": lambda samples, _: samples}
    for name, db in (("silence", None), (f"noise at {NOISE_DB:g} dB", NOISE_DB)):
        for seconds in PADDING:
            change = functools.partial(surround, rate=rate, seconds=seconds, db=db)
            changes[f"{seconds} s of {name} on either side"] = change
    for gain in GAINS:
        changes[f"gain {gain:g}"] = lambda samples, _, gain=gain: gain * samples  # type: ignore[misc]
    return changes


def joined(
    recordings: Iterator[tuple[Samples, tuple[str, ...]]], rate: int
) -> Iterator[tuple[Samples, tuple[str, ...]]]:
    """Recordings and their words, joined to ones of ten minutes or less."""
    samples: list[Samples] = []
    words: tuple[str, ...] = ()
    for recording, spoken in recordings:
        samples, words = [*samples, recording], words + spoken
        if sum(map(len, samples)) > (JOINED_SECONDS - 10) * rate:
            yield np.concatenate(samples), words
            samples, words = [], ()
    if samples:
        yield np.concatenate(samples), words


def word_error_rate(config: Config, recordings: Iterator[tuple[Samples, tuple[str, ...]]], rate: int) -> float:
    """WER in per cent of recordings, decoded as files by ``python -m asr_kd.decode``."""
    exp, references = config.exp, []
    with tempfile.TemporaryDirectory() as folder:
        for number, (samples, words) in enumerate(recordings):
            soundfile.write(Path(folder) / f"{number:06d}.wav", samples, rate, subtype="FLOAT")
            references.append(words)
        command: list[str | Path] = [
            sys.executable, "-m", "asr_kd.decode", "--model", exp / config.model, "--graph", exp / "graph",
            "--features", exp / "features", "--tuned", exp / "tuned" / "tuned.json", "--format", "jsonl",
            *sorted(Path(folder).iterdir()),
        ]  # fmt: skip
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    hypotheses = [(json.loads(line)["words"] or "").split() for line in output.splitlines()]
    errors = [edit_distance(list(a), b)["total"] for a, b in zip(references, hypotheses, strict=True)]
    return 100 * sum(errors) / sum(map(len, references))


def main(config: Config) -> None:
    cuts = [cut for cut in load_cuts(config.exp / "features", config.split) if cut.supervisions[0].text]
    cuts_path = config.exp / "features" / f"cuts_{config.split}.jsonl.gz"
    references = read_references(cuts_path, Words(config.exp / "graph").case)

    def recordings(change: Condition) -> Iterator[tuple[Samples, tuple[str, ...]]]:
        generator = np.random.default_rng(0)
        for cut in cuts:
            yield change(cut.load_audio()[0], generator), references[cut.id].words

    sampling = FrontEnd.load(config.exp / "features").sampling_rate
    print("| condition | WER % | difference |\n| --- | --: | --: |", flush=True)
    rates: list[float] = []
    for name, change in conditions(sampling).items():
        rates.append(word_error_rate(config, recordings(change), sampling))
        print(f"| {name} | {rates[-1]:.2f} | {rates[-1] - rates[0]:+.2f} |", flush=True)
    rate = word_error_rate(config, joined(recordings(lambda samples, _: samples), sampling), sampling)
    print(f"| joined to ten minutes | {rate:.2f} | {rate - rates[0]:+.2f} |", flush=True)
    if (worst := max(abs(rate - rates[0]) for rate in rates)) > config.tolerance:
        raise UserError(f"the WER moves by {worst:.2f} points, more than {config.tolerance:g}")


if __name__ == "__main__":
    run(Config, main)
