"""k2 against Kaldi's FasterDecoder on the same graph and scores: time, words and errors.

    python tools/bench_search.py --graph exp/graph --model exp/teachers/seed-0 --features exp/features \
        --cuts exp/features/cuts_dev.jsonl.gz --acoustic-scale 0.12 --out search.json

Both have one thread, and search the same utterances in turn.  Times are those of the CPU, from scores to words.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench
import kaldi_decoder
import kaldialign
import kaldifst
import numpy as np
from lhotse import CutSet
from lhotse.cut import MonoCut

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.common.storage import read_json
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.client import Search
from asr_kd.decode.prepare import find_k2_python, prepared_graph
from asr_kd.decode.worker import SearchOptions
from asr_kd.lang.words import Words


@dataclasses.dataclass
class Config:
    """Search with k2 and with kaldi_decoder.FasterDecoder."""

    graph: Path
    """Folder of the graph."""
    model: tuple[Path, ...]
    """Folder of a network, folders of several networks (an ensemble), or folder of the GMM."""
    features: Path
    """Folder of the features."""
    cuts: Path
    """File cuts_SPLIT.jsonl.gz with the utterances."""
    utterances: int = 200
    """Number of utterances, from the start of that file."""
    beam: float = 13.0
    """Beam of both decoders."""
    k2_beam: float | None = None
    """Beam of k2; default: --beam."""
    max_active: tuple[int, ...] = (2500, 20000)
    """Active states per frame of both decoders.  They prune by this number in different ways, so that only with many
    states they must find the same words."""
    acoustic_scale: float = 0.1
    """Factor of the acoustic scores."""
    rounds: int = 3
    """Searches of every utterance; the times are the medians."""
    batch: int = 4
    """Utterances per search of k2."""
    tolerance: float = 1e-2
    """Largest difference between the path scores that counts as agreement."""
    strict: bool = False
    """Exit with 1 unless both find the same words and scores with the largest number of states."""
    k2_python: Path | None = None
    """Interpreter that has k2; default: see asr_kd.decode."""
    out: Path | None = None
    """JSON file for the results."""


@dataclasses.dataclass
class Pair:
    """What both decoders found for one utterance: word ids, and the score of k2's path less that of Kaldi's."""

    k2: list[int]
    kaldi: list[int]
    difference: float


@dataclasses.dataclass
class Comparison:
    """All utterances, and the CPU seconds of both decoders: one number for each round."""

    pairs: list[Pair]
    k2_seconds: list[float]
    kaldi_seconds: list[float]

    @property
    def same_words(self) -> int:
        return sum(pair.k2 == pair.kaldi for pair in self.pairs)

    @property
    def largest_difference(self) -> float:
        return max(abs(pair.difference) for pair in self.pairs)


def compare(
    graph: Path, search: Search, scores: Sequence[np.ndarray], options: SearchOptions, rounds: int = 1, batch: int = 4,
    kaldi_beam: float | None = None,
) -> Comparison:  # fmt: skip
    """Search each matrix of ``scores`` with both decoders, ``rounds`` times.

    Args:
        graph: HCLG.fst, from which the graph of ``search`` was prepared.
        scores: log-likelihoods (T, C) float32.
        options: beam, max_active and acoustic_scale apply to both.
        batch: utterances per search of k2.
        kaldi_beam: FasterDecoder's beam, if it is another one.
    """
    settings = kaldi_decoder.FasterDecoderOptions()
    settings.beam = kaldi_beam or options.beam
    settings.max_active, settings.min_active = options.max_active, options.min_active
    fst = kaldifst.StdVectorFst.read(str(graph))  # the decoder keeps no reference to it
    decoder = kaldi_decoder.FasterDecoder(fst, settings)
    search(list(scores[:1]), options)  # k2 and the graph are loaded before the clock runs
    result = Comparison([], [], [])
    for _ in range(rounds):
        before, seconds, pairs = search.seconds, 0.0, []
        for start in range(0, len(scores), batch):
            matrices = scores[start : start + batch]
            outcomes = search(list(matrices), options)
            started = time.thread_time()
            found = [_kaldi(decoder, matrix * np.float32(options.acoustic_scale)) for matrix in matrices]
            seconds += time.thread_time() - started
            for outcome, (words, score) in zip(outcomes, found, strict=True):
                if outcome.hypothesis is None:
                    raise UserError(f"k2 found no words: {outcome.reason}")
                theirs = outcome.hypothesis.acoustic + outcome.hypothesis.graph
                pairs.append(Pair(outcome.hypothesis.words or [], words, theirs - score))
        result.k2_seconds.append(search.seconds - before)
        result.kaldi_seconds.append(seconds)
        result.pairs = pairs
    return result


def _kaldi(decoder: kaldi_decoder.FasterDecoder, scores: np.ndarray) -> tuple[list[int], float]:
    """Word ids and score of the best path, for scores (T, C) that include the acoustic scale."""
    decodable = kaldi_decoder.DecodableCtc(np.ascontiguousarray(scores))
    decoder.decode(decodable)
    reached, lattice = decoder.get_best_path()
    if not reached:
        raise UserError("FasterDecoder reached no final state: give a wider --beam")
    _, _, words, weight = kaldifst.get_linear_symbol_sequence(lattice)
    return list(words), -(weight.value1 + weight.value2)


def row(result: Comparison, max_active: int, cuts: Sequence[MonoCut], words: Words) -> dict[str, Any]:
    """A line of the table."""
    audio, texts = sum(cut.duration for cut in cuts), [words.split(cut.supervisions[0].text or "") for cut in cuts]
    ours = [words.text(pair.k2).split() for pair in result.pairs]
    theirs = [words.text(pair.kaldi).split() for pair in result.pairs]
    k2, kaldi = (float(np.median(seconds)) for seconds in (result.k2_seconds, result.kaldi_seconds))
    ratios = [a / b for a, b in zip(result.k2_seconds, result.kaldi_seconds, strict=True)]
    return {
        "max active": max_active,
        "k2 RTF": k2 / audio,
        "Kaldi RTF": kaldi / audio,
        "k2 : Kaldi": float(np.median(ratios)),
        "k2 errors": _errors(texts, ours),
        "Kaldi errors": _errors(texts, theirs),
        "of words": sum(map(len, texts)),
        "same words": f"{result.same_words} of {len(result.pairs)}",
        "k2's path better": sum(pair.difference > 1e-2 for pair in result.pairs),
        "Kaldi's better": sum(pair.difference < -1e-2 for pair in result.pairs),
        "largest difference": result.largest_difference,
    }


def _errors(texts: Sequence[list[str]], hypotheses: Sequence[list[str]]) -> int:
    return sum(kaldialign.edit_distance(a, b)["total"] for a, b in zip(texts, hypotheses, strict=True))


def main(config: Config) -> None:
    description = read_json(config.graph / "graph.json")
    num_pdfs = int(description["num_pdfs"])
    python = find_k2_python(config.k2_python)
    scorer = load_scorer(config.model, config.features, num_pdfs, description.get("silence_pdfs", ()))
    search = Search(prepared_graph(config.graph, python), python, num_pdfs)
    cuts = list(itertools.islice(CutSet.from_file(config.cuts), config.utterances))
    scores = [scorer(cut) for cut in progress(cuts, "score", len(cuts), "utterance")]
    rows = []
    for max_active in config.max_active:
        beam = config.k2_beam or config.beam
        options = SearchOptions(beam=beam, max_active=max_active, acoustic_scale=config.acoustic_scale)
        result = compare(config.graph / "HCLG.fst", search, scores, options, config.rounds, config.batch, config.beam)
        rows.append(row(result, max_active, cuts, Words(config.graph)))
    search.close()
    bench.report(config, rows, f"{len(cuts)} utterances, beam {config.beam:g}, scale {config.acoustic_scale:g}")
    agree = result.same_words == len(result.pairs) and result.largest_difference <= config.tolerance
    if config.strict and not agree:
        raise UserError("the decoders disagree: try a wider --beam, then check the graph")


if __name__ == "__main__":
    run(Config, main)
