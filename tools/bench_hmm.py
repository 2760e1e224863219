"""The GMMs: what each phase of their training costs, and forced alignment beside Kaldi's own.

    python tools/bench_hmm.py --features exp/features --lang exp/lang --out tools/results/hmm.json

One core, whose time is counted, so that other work on it disturbs little.  Alignment is that of asr_kd.hmm, whose
scores NumPy computes for all states at once, against kaldi-hmm-gmm's with the same model, graphs and beams, whose
scores Kaldi computes when the search asks for them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import bench
import kaldi_hmm_gmm
import numpy as np
import psutil

from asr_kd.common.cli import run
from asr_kd.common.progress import progress
from asr_kd.corpora.cuts import load_cuts
from asr_kd.hmm.gmm import Gmms
from asr_kd.hmm.kaldi_io import read_model, read_tree
from asr_kd.hmm.pronunciations import Pronunciations
from asr_kd.hmm.scores import GmmScorer
from asr_kd.hmm.viterbi import (
    ACOUSTIC_SCALE,
    BEAM,
    RETRY_BEAM,
    SELF_LOOP_SCALE,
    Graph,
    GraphCompiler,
    Transitions,
    viterbi_align,
)

SAMPLE_SECONDS = 0.1


@dataclasses.dataclass
class Config:
    """Train the GMMs of an experiment again, and align with them."""

    features: Path
    """Folder of the features."""
    lang: Path
    """Folder of the lexicon."""
    leaves: int = 500
    """Leaves of the trees."""
    utterances: int = 200
    """Training utterances that are aligned."""
    out: Path | None = None
    """File for the figures (JSON)."""


def main(config: Config) -> None:
    hours = sum(cut.duration for cut in load_cuts(config.features, "train")) / 3600
    with tempfile.TemporaryDirectory() as scratch:
        seconds = train(config, Path(scratch, "gmm"))
        rows: list[dict[str, Any]] = [
            {"": phase, "s": round(taken, 1), "minutes per hour of speech": round(taken / 60 / hours, 2)}
            for phase, taken in seconds.items()
        ]
        rows += align(config, Path(scratch, "gmm"))
    names = dict.fromkeys(name for row in rows for name in row)
    bench.report(config, [{name: row.get(name) for name in names} for row in rows], f"{hours:.2f} hours of speech")


def train(config: Config, out: Path) -> dict[str, float]:
    """Run the stage; returns the seconds of each phase, by what it prints at the end of each pass."""
    flags = ["--features", config.features, "--lang", config.lang, "--leaves", config.leaves, "--jobs", 1, "--out", out]
    command = [sys.executable, "-u", "-m", "asr_kd.hmm", *map(str, flags)]
    seconds: dict[str, float] = defaultdict(float)
    before, computed = 0.0, [0.0]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        watcher = threading.Thread(target=watch, args=(process, computed))
        watcher.start()
        for line in process.stdout:
            now = computed[0]
            seconds[line.partition(",")[0] if ", pass " in line else "alignment of all splits"] += now - before
            before = now
        watcher.join()
    if process.returncode:
        raise SystemExit(process.returncode)
    return seconds


def watch(process: subprocess.Popen[str], computed: list[float]) -> None:
    """Keep the seconds that cores have computed for a process and those below it, which may end before it does."""
    while process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = (one := psutil.Process(process.pid), *one.children(recursive=True))
            computed[0] = max(computed[0], sum(sum(own.cpu_times()[:2]) for own in tree))
        time.sleep(SAMPLE_SECONDS)


def align(config: Config, gmm: Path) -> list[dict[str, Any]]:
    """Rows for our alignment of some utterances, and Kaldi's."""
    model, gmms = read_model(gmm / "tri.mdl")
    transitions, tree = Transitions.of(model), read_tree(gmm / "tree")
    pronunciations, scorer = Pronunciations.load(config.lang), GmmScorer(gmm)
    cuts = list(itertools.islice(load_cuts(config.features, "train"), config.utterances))
    texts = [pronunciations.words(cut) for cut in cuts]
    lexicon, _ = pronunciations.lexicon(texts)
    compiler = GraphCompiler(transitions, tree, lexicon, pronunciations.probabilities(lexicon), pronunciations.phones)
    features = [scorer.features(cut) for cut in cuts]
    seconds: dict[str, float] = defaultdict(float)
    same = frames = 0
    kaldi = to_kaldi(gmms)
    for text, own in zip(progress(texts, "alignment", unit="utterance"), features, strict=True):
        paths = []
        graph = compiler(text)
        works = (("ours", ours, Graph.of(graph, transitions), gmms), ("Kaldi's", kaldis, graph, kaldi))
        for name, work, graph, mixtures in works:
            started = time.process_time()
            paths.append(work(graph, transitions, mixtures, own))
            seconds[name] += time.process_time() - started
        frames += len(own)
        same += int((paths[0] == paths[1]).sum())
    audio = frames / 100
    return [
        {"": f"alignment, {name}", "s": round(taken, 1), "minutes per hour of speech": round(60 * taken / audio, 2),
         "frames as Kaldi's, %": round(100 * same / frames, 2)}
        for name, taken in seconds.items()
    ]  # fmt: skip


def ours(graph: Graph, transitions: Transitions, gmms: Gmms, features: np.ndarray) -> np.ndarray:
    """Transition-ids (T,) as a pass of asr_kd.hmm finds them."""
    pdfs, inverse = np.unique(transitions.pdf[graph.transition_ids], return_inverse=True)
    found = viterbi_align(graph, transitions, gmms.scores(features, pdfs)[:, inverse])
    return np.zeros(len(features)) if found is None else found[0]


def kaldis(graph: Any, transitions: Transitions, gmms: kaldi_hmm_gmm.AmDiagGmm, features: np.ndarray) -> np.ndarray:
    """The same by Kaldi's gmm-align-compiled."""
    kaldi_hmm_gmm.add_transition_probs(
        trans_model=transitions.model, transition_scale=1.0, self_loop_scale=SELF_LOOP_SCALE, fst=graph
    )
    decodable = kaldi_hmm_gmm.DecodableAmDiagGmmScaled(gmms, transitions.model, features, ACOUSTIC_SCALE)
    config = kaldi_hmm_gmm.AlignConfig(BEAM, RETRY_BEAM)
    path = kaldi_hmm_gmm.align_utterance_wrapper(config, "", ACOUSTIC_SCALE, graph, decodable, 0, 0, 0, 0.0, 0)[5]
    return np.array(path) if len(path) == len(features) else np.zeros(len(features))


def to_kaldi(gmms: Gmms) -> kaldi_hmm_gmm.AmDiagGmm:
    """The same Gaussians as Kaldi's object."""
    model = kaldi_hmm_gmm.AmDiagGmm()
    for first, last in itertools.pairwise(gmms.starts.tolist()):
        mixture = kaldi_hmm_gmm.DiagGmm(last - first, gmms.dim)
        mixture.set_weights(gmms.weights[first:last].astype(np.float32))
        inverse = (1 / gmms.variances[first:last]).astype(np.float32)
        mixture.set_invvars_and_means(inverse, gmms.means[first:last].astype(np.float32))
        mixture.compute_gconsts()
        model.add_pdf(mixture)
    return model


if __name__ == "__main__":
    run(Config, main)
