"""A bundle in the runtime: whole recordings, streams, one long recording; words, speed, latency, memory.

    python tools/bench_runtime.py --bundle exp/bundle/quarter_student --features exp/features --split test \
        --decoded exp/decode/quarter_student-0 --out runtime.json

One thread.  Streams get packets of 100 ms; a word has settled when neither it nor a word before it changes any more.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import bench
import kaldialign
import numpy as np
from lhotse import CutSet

from asr_kd.common.cli import run
from asr_kd.common.progress import progress
from asr_kd.decode.acoustics import load_scorer
from asr_kd.features.extractors import compute_features
from asr_kd.features.front_end import FrontEnd
from asr_kd.features.normalise import Normaliser
from asr_kd.features.parts import WHOLE, parts
from asr_kd.models.network import read_network
from asr_kd.runtime import Recogniser, Result
from asr_kd.runtime.stream import Settings

PACKET = 0.1  # seconds


@dataclasses.dataclass
class Config:
    """Recognise a split with a bundle, in three ways."""

    bundle: Path
    """Folder of the bundle."""
    features: Path
    """Folder of the features, whose cuts have audio and transcripts."""
    split: str = "test"
    """Split to recognise."""
    utterances: int = 100
    """Number of utterances, from its start."""
    decoded: Path | None = None
    """Folder of asr_kd.decode with hyp_SPLIT.tsv of the same network, to compare the words."""
    minutes: float = 40.0
    """Length of the recording that the utterances are joined to, repeated as often as necessary."""
    pause: float = 0.5
    """Seconds of faint noise between them."""
    float32: bool = False
    """Use the network in float32 instead of int8."""
    ensemble: tuple[Path, ...] = ()
    """Folders of the networks that it was distilled from, whose scoring in torch is timed next to its own."""
    out: Path | None = None
    """JSON file for the results."""


@dataclasses.dataclass
class Utterance:
    """Name, samples, and words of the transcript."""

    name: str
    samples: np.ndarray
    text: list[str]


def main(config: Config) -> None:
    recogniser = Recogniser.from_bundle(config.bundle, not config.float32)
    rate = recogniser.bundle.sampling_rate
    cuts = itertools.islice(CutSet.from_file(config.features / f"cuts_{config.split}.jsonl.gz"), config.utterances)
    utterances = [
        Utterance(cut.id, cut.resample(rate).load_audio()[0], recogniser.graph.words.split(cut.supervisions[0].text))
        for cut in cuts
    ]
    whole, words = measure("whole recordings", utterances, rate, recogniser)
    rows = [whole]
    if config.decoded is not None:
        lines = (config.decoded / f"hyp_{config.split}.tsv").read_text().splitlines()
        known = dict(line.split("\t") for line in lines)
        whole["same words as asr_kd.decode"] = sum(known[u.name] == w for u, w in zip(utterances, words, strict=True))
    latencies: list[float] = []
    streamed, found = measure("streams", utterances, rate, lambda samples: stream(recogniser, samples, latencies))
    streamed["same words as whole"] = sum(a == b for a, b in zip(words, found, strict=True))
    streamed["settled, median s"], streamed["settled, 90 % s"] = np.quantile(latencies, [0.5, 0.9]).round(3).tolist()
    look_ahead = max(Settings().look_ahead, recogniser.bundle.right) * recogniser.bundle.seconds
    rows += [streamed, joined(config, recogniser, utterances)]
    if config.ensemble:
        rows += scoring(config, recogniser, utterances)
    columns = dict.fromkeys(key for row in rows for key in row)
    rows = [{key: row.get(key) for key in columns} for row in rows]
    bench.report(config, rows, f"{len(utterances)} utterances; streams look {look_ahead:.2f} s ahead")


def measure(
    name: str, utterances: Sequence[Utterance], rate: int, recognise: Callable[[np.ndarray], Result]
) -> tuple[dict[str, Any], list[str]]:
    """A row of the table, and the words of each utterance."""
    found, seconds = [], 0.0
    for utterance in progress(utterances, name, len(utterances), "utterance"):
        started = time.perf_counter()
        found.append(recognise(utterance.samples).text)
        seconds += time.perf_counter() - started
    audio = sum(len(utterance.samples) for utterance in utterances) / rate
    errors = sum(
        kaldialign.edit_distance(u.text, words.split())["total"] for u, words in zip(utterances, found, strict=True)
    )
    count = sum(len(utterance.text) for utterance in utterances)
    return {"": name, "WER %": round(100 * errors / count, 2), "words": count, "RTF": round(seconds / audio, 4)}, found


def stream(recogniser: Recogniser, samples: np.ndarray, latencies: list[float]) -> Result:
    """The words of a stream; ``latencies`` gains the seconds from the end of each word until it has settled."""
    rate = recogniser.bundle.sampling_rate
    packet, live = round(PACKET * rate), recogniser.stream()
    shown: list[tuple[float, list[str]]] = []
    for start in range(0, len(samples), packet):
        live.accept(samples[start : start + packet])
        shown.append((min(start + packet, len(samples)) / rate, live.partial().text.split()))
    result = live.finish()
    final = result.text.split()
    shown.append((len(samples) / rate, final))
    for place, word in enumerate(result.words):
        settled = len(shown) - 1
        while settled and shown[settled - 1][1][: place + 1] == final[: place + 1]:
            settled -= 1
        latencies.append(max(0.0, shown[settled][0] - word.end))
    return result


def joined(config: Config, recogniser: Recogniser, utterances: Sequence[Utterance]) -> dict[str, Any]:
    """A row for one recording of all utterances, repeated, given in blocks as a file is read."""
    rate, noise = recogniser.bundle.sampling_rate, np.random.default_rng(0)
    text: list[str] = []
    samples = 0

    def blocks() -> Iterator[np.ndarray]:
        nonlocal samples
        for utterance in itertools.cycle(utterances):
            if samples > 60 * config.minutes * rate:
                return
            pause = noise.normal(scale=1e-4, size=round(config.pause * rate)).astype(np.float32)
            text.extend(utterance.text)
            samples += len(utterance.samples) + len(pause)
            yield np.concatenate([utterance.samples, pause])

    words: list[str] = []
    started = time.perf_counter()

    def recognise() -> None:
        for first, part in parts(blocks(), recogniser.bundle.shift, WHOLE, WHOLE):
            words.extend(recogniser.search(recogniser.scores(part), first).text.split())

    memory = bench.extra_bytes(recognise, "cpu", warm_up=False)
    seconds = time.perf_counter() - started
    errors = kaldialign.edit_distance(text, words)["total"]
    return {
        "": f"one recording of {samples / rate / 60:.0f} min", "WER %": round(100 * errors / len(text), 2),
        "words": len(text), "RTF": round(seconds * rate / samples, 4), "memory, MB": round(memory / 1e6, 1),
    }  # fmt: skip


def scoring(config: Config, recogniser: Recogniser, utterances: Sequence[Utterance]) -> list[dict[str, Any]]:
    """Rows for the time from samples to scores, of the bundle and of the ensemble, without a search."""
    front_end = FrontEnd.load(config.features)
    senones = read_network(config.ensemble[0]).num_senones
    scorer = load_scorer(config.ensemble, config.features, senones, recogniser.bundle.silence_pdfs)
    normaliser = Normaliser(front_end)
    samples = [utterance.samples for utterance in utterances]
    features = [normaliser.normalise(compute_features(front_end, own)) for own in samples]
    seconds = bench.in_turn({
        "features": lambda: [normaliser.normalise(compute_features(front_end, own)) for own in samples],
        "ensemble": lambda: [scorer.scores(own, 0, len(own)) for own in features],
        "bundle": lambda: [recogniser.scores(own) for own in samples],
    })  # fmt: skip
    audio = sum(len(utterance.samples) for utterance in utterances) / recogniser.bundle.sampling_rate
    rows = {
        "scoring, log-mels included": seconds["bundle"],
        f"scoring of {len(config.ensemble)} networks in torch": seconds["ensemble"],
        "the same, log-mels included": seconds["ensemble"] + seconds["features"],
    }
    return [
        {"": name, "RTF": round(taken / audio, 5), "× bundle": round(taken / seconds["bundle"], 1)}
        for name, taken in rows.items()
    ]


if __name__ == "__main__":
    run(Config, main)
