"""Frames a second from samples to scores on one core of torch in float32 and bfloat16, onnxruntime in float32 and int8.

    python tools/bench_scoring.py --systems student=exp/student/seed-0 \
        ensemble=exp/teachers/seed-0,exp/teachers/seed-1,exp/teachers/seed-2 --features exp/features --graph exp/graph

Times are medians of rounds in which every form of every system has its turn.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import bench
import numpy as np
import torch
from lhotse import CutSet

from asr_kd.bundle.export import export_float, export_int8
from asr_kd.bundle.network import Samples2Scores
from asr_kd.bundle.speech import usual_speech
from asr_kd.common.cli import run
from asr_kd.common.storage import read_json
from asr_kd.decode.acoustics import load_scorer
from asr_kd.features.extractors import compute_features
from asr_kd.features.front_end import FrontEnd
from asr_kd.features.normalise import Normaliser
from asr_kd.models.checkpoints import load_log_prior, load_model
from asr_kd.models.network import read_network
from asr_kd.runtime.bundle import FLOAT, INT8, Bundle
from asr_kd.runtime.network import Network

#: Utterances from which the ranges of int8 are taken.
CALIBRATION = 20


@dataclasses.dataclass
class Config:
    """Score a split with networks and ensembles, in four forms each."""

    systems: tuple[str, ...]
    """NAME=DIR for a network, NAME=DIR,DIR,… for an ensemble; the others are compared with the first one in float32."""
    features: Path
    """Folder of the features, whose cuts have audio."""
    graph: Path
    """Folder of the graph, which knows the senones of silence."""
    split: str = "test"
    """Split to score."""
    utterances: int = 100
    """Number of utterances, from its start."""
    out: Path | None = None
    """File for the figures (JSON)."""


def main(config: Config) -> None:
    torch.set_num_threads(1)
    cuts = (
        CutSet.from_file(config.features / f"cuts_{config.split}.jsonl.gz").subset(first=config.utterances).to_eager()
    )
    front_end, silence = FrontEnd.load(config.features), tuple(read_json(config.graph / "graph.json")["silence_pdfs"])
    samples = [cut.resample(front_end.sampling_rate).load_audio()[0] for cut in cuts]
    usual = usual_speech(Normaliser.load(config.features), cuts)
    forms: dict[tuple[str, str], Callable[[np.ndarray], object]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for system in config.systems:
            name, _, folders = system.partition("=")
            networks = [Path(folder) for folder in folders.split(",")]
            for form, score in in_torch(networks, config.features, front_end, silence):
                forms[name, form] = score
            exported = [
                export(network, front_end, silence, usual, samples[:CALIBRATION], Path(scratch, name, str(number)))
                for number, network in enumerate(networks)
            ]
            for form in ("ONNX float32", "ONNX int8"):
                forms[name, form] = partial(score_with_all, [one[form] for one in exported])
        taken = bench.in_turn({key: partial(score_each, score, samples) for key, score in forms.items()})
    frames = sum(len(own) for own in samples) // (front_end.sampling_rate // 100)
    first = taken[next(iter(forms))]
    rows = [
        {"system": name, "form": form, "frames / s": round(frames / taken[name, form]),
         "× first": round(first / taken[name, form], 2)}
        for name, form in forms
    ]  # fmt: skip
    bench.report(config, rows, f"{len(samples)} utterances, {frames:,} frames")


def in_torch(
    networks: list[Path], features: Path, front_end: FrontEnd, silence: tuple[int, ...]
) -> Iterator[tuple[str, Callable[[np.ndarray], object]]]:
    """Forms as asr_kd.decode uses them, and under autocast."""
    scorer = load_scorer(networks, features, read_network(networks[0]).num_senones, silence)
    normaliser = Normaliser(front_end)

    def score(kind: torch.dtype, samples: np.ndarray) -> np.ndarray:
        normalised = normaliser.normalise(compute_features(front_end, samples))
        with torch.autocast("cpu", kind, enabled=kind != torch.float32):
            return scorer.scores(normalised, 0, len(normalised))

    yield "torch float32", partial(score, torch.float32)
    yield "torch bfloat16", partial(score, torch.bfloat16)


def score_each(score: Callable[[np.ndarray], object], samples: list[np.ndarray]) -> None:
    """Score utterances."""
    for own in samples:
        score(own)


def score_with_all(networks: list[Network], samples: np.ndarray) -> None:
    """Score with each network of an ensemble."""
    for network in networks:
        network.whole(samples)


def export(
    folder: Path, front_end: FrontEnd, silence: tuple[int, ...], usual: np.ndarray, samples: list[np.ndarray], out: Path
) -> dict[str, Network]:
    """A network as ONNX, in two forms."""
    out.mkdir(parents=True)
    network = Samples2Scores(front_end, load_model(folder), load_log_prior(folder), silence, 1.0, usual)
    frames = network.front_end
    bundle = Bundle(
        front_end.sampling_rate, frames.length, frames.shift, front_end.num_features, network.left, network.right,
        silence, 13.0, 2500, 30, 0.0, 1.0,
    )  # fmt: skip
    export_float(network, front_end.num_features, out / FLOAT)
    export_int8(out / FLOAT, bundle, samples, out / INT8)
    return {"ONNX float32": Network(out / FLOAT, bundle), "ONNX int8": Network(out / INT8, bundle)}


if __name__ == "__main__":
    run(Config, main)
