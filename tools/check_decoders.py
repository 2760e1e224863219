"""Checks that k2 and Kaldi's FasterDecoder find the same words with the same graph and scores.

    python tools/check_decoders.py --graph exp/graph --model exp/teachers/seed-0 --features exp/features \
        --cuts exp/features/cuts_dev.jsonl.gz
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import kaldi_decoder
import kaldifst
import numpy as np
from lhotse import CutSet

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.common.storage import read_json
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.client import Search
from asr_kd.decode.prepare import find_k2_python, prepared_graph
from asr_kd.decode.worker import SearchOptions
from asr_kd.models.scorer import Scorer


@dataclasses.dataclass
class Config:
    """Search with k2 and with kaldi_decoder.FasterDecoder; exit with 1 unless they agree."""

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
    max_active: int = 20000
    """Active states per frame of both decoders; large, because they prune by this number in different ways."""
    acoustic_scale: float = 0.1
    """Factor of the acoustic scores."""
    tolerance: float = 1e-2
    """Largest difference between the path scores that counts as agreement."""
    k2_python: Path | None = None
    """Interpreter that has k2; default: see asr_kd.decode."""


@dataclasses.dataclass
class Comparison:
    """Counts of utterances.

    Attributes:
        utterances: all utterances.
        same_words: both decoders found the same words.
        largest_difference: between the total scores of the best paths.
        kaldi_better, k2_better: the words differ, and the path of this decoder has the higher score.
    """

    utterances: int = 0
    same_words: int = 0
    largest_difference: float = 0.0
    kaldi_better: int = 0
    k2_better: int = 0


def compare(graph: Path, search: Search, scores: Iterator[np.ndarray], options: SearchOptions) -> Comparison:
    """Search each matrix of ``scores`` with both decoders.

    Args:
        graph: HCLG.fst, from which the graph of ``search`` was prepared.
        scores: log-likelihoods (T, C) float32.
        options: beam, max_active and acoustic_scale apply to both.
    """
    settings = kaldi_decoder.FasterDecoderOptions()
    settings.beam, settings.max_active, settings.min_active = options.beam, options.max_active, options.min_active
    fst = kaldifst.StdVectorFst.read(str(graph))  # the decoder keeps no reference to it
    decoder = kaldi_decoder.FasterDecoder(fst, settings)
    result = Comparison()
    while batch := list(itertools.islice(scores, 8)):
        for matrix, outcome in zip(batch, search(batch, options), strict=True):
            if outcome.hypothesis is None:
                raise UserError(f"k2 found no words: {outcome.reason}")
            words, score = _kaldi(decoder, matrix * np.float32(options.acoustic_scale))
            difference = score - (outcome.hypothesis.acoustic + outcome.hypothesis.graph)
            same = words == outcome.hypothesis.words
            result.utterances += 1
            result.same_words += same
            result.largest_difference = max(result.largest_difference, abs(difference))
            result.kaldi_better += not same and difference > 0
            result.k2_better += not same and difference < 0
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


def _scores(scorer: Scorer, cuts: Path, count: int) -> Iterator[np.ndarray]:
    for cut in progress(itertools.islice(CutSet.from_file(cuts), count), "compare", count, "utterance"):
        yield scorer(cut)


def main(config: Config) -> None:
    num_pdfs = int(read_json(config.graph / "graph.json")["num_pdfs"])
    python = find_k2_python(config.k2_python)
    scorer = load_scorer(config.model, config.features, num_pdfs)
    search = Search(prepared_graph(config.graph, python), python, num_pdfs)
    options = SearchOptions(beam=config.beam, max_active=config.max_active, acoustic_scale=config.acoustic_scale)
    scores = _scores(scorer, config.cuts, config.utterances)
    result = compare(config.graph / "HCLG.fst", search, scores, options)
    search.close()
    print(
        f"same words: {result.same_words} of {result.utterances}; largest score difference "
        f"{result.largest_difference:.2g}; where they differ, Kaldi's path is better {result.kaldi_better} times, "
        f"k2's {result.k2_better}"
    )
    if result.same_words < result.utterances or result.largest_difference > config.tolerance:
        raise UserError("the decoders disagree: try a wider --beam, then check the graph")


if __name__ == "__main__":
    run(Config, main)
