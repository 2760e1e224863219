"""The search by k2, by the kernel, and by Kaldi's decoders on the same graph and scores: time, words and errors.

    python tools/bench_search.py --graph exp/graph --model exp/teachers/seed-0 --features exp/features \
        --cuts exp/features/cuts_dev.jsonl.gz --acoustic-scale 0.12 --out search.json

All have one thread, and search the same utterances in turn.  Times are those of the CPU, from scores to words, and to a
lattice in further rows.  Kaldi's decoders are FasterDecoder, and LatticeFasterDecoder for lattices (those of frames,
not determinised).
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import bench
import kaldi_decoder
import kaldi_hmm_gmm as khg
import kaldialign
import kaldifst
import numpy as np
from lhotse import CutSet
from lhotse.cut import MonoCut

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.progress import progress
from asr_kd.common.storage import read_json
from asr_kd.decode import kernel
from asr_kd.decode.acoustics import load_scorer
from asr_kd.decode.client import Search
from asr_kd.decode.prepare import find_k2_python, prepared_graph
from asr_kd.decode.worker import SearchOptions
from asr_kd.lang.words import Words

#: LatticeFasterDecoder asks for a transition model, and uses it only where lattices are determinised.
TOPOLOGY = """<Topology> <TopologyEntry> <ForPhones> 1 </ForPhones>
<State> 0 <PdfClass> 0 <Transition> 0 0.5 <Transition> 1 0.5 </State> <State> 1 </State>
</TopologyEntry> </Topology>"""


@dataclasses.dataclass
class Config:
    """Search with k2, with the kernel, and with Kaldi's FasterDecoder and LatticeFasterDecoder."""

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
    beam: tuple[float, ...] = (13.0,)
    """Beams of all decoders."""
    max_active: tuple[int, ...] = (2500, 20000)
    """Active states per frame of all decoders.  Kaldi's prune by this number in another way, so that only with many
    states they must find the same words."""
    lattices: bool = True
    """Whether there are rows with lattices, too."""
    lattice_beam: float = 4.0
    """Lattice beam of those rows."""
    acoustic_scale: float = 0.1
    """Factor of the acoustic scores."""
    rounds: int = 3
    """Searches of every utterance; the times are the medians."""
    batch: int = 4
    """Utterances per search of k2 and of the kernel."""
    tolerance: float = 1e-2
    """Largest difference between the path scores that counts as agreement."""
    strict: bool = False
    """Exit with 1 unless the kernel and Kaldi find the same words and scores with the largest number of states."""
    k2_python: Path | None = None
    """Interpreter that has k2; default: see asr_kd.decode."""
    out: Path | None = None
    """JSON file for the results."""


class Best(NamedTuple):
    """A best path: word ids, and the score."""

    words: list[int]
    score: float


#: Best paths of matrices (T, C) of scores, and the CPU seconds that they took.
Decoder = Callable[[Sequence[np.ndarray]], tuple[list[Best], float]]


@dataclasses.dataclass
class Comparison:
    """The best path that each decoder found of each utterance, and its CPU seconds in each round."""

    paths: dict[str, list[Best]]
    seconds: dict[str, list[float]]

    def same_words(self, one: str, other: str) -> int:
        return sum(a.words == b.words for a, b in zip(self.paths[one], self.paths[other], strict=True))

    def largest_difference(self, one: str, other: str) -> float:
        """The largest difference between the scores of their paths."""
        return max(abs(a.score - b.score) for a, b in zip(self.paths[one], self.paths[other], strict=True))

    def ratio(self, one: str, other: str) -> float:
        """The median over the rounds of the seconds of one decoder relative to those of another."""
        return float(np.median(np.divide(self.seconds[one], self.seconds[other])))


def compare(
    decoders: Mapping[str, Decoder], scores: Sequence[np.ndarray], rounds: int = 1, batch: int = 4
) -> Comparison:
    """Search ``batch`` matrices of ``scores`` with each decoder in turn, then the next; all ``rounds`` times."""
    for decoder in decoders.values():
        decoder(scores[:1])  # what they load is loaded before the clock runs
    result = Comparison({}, {name: [] for name in decoders})
    for _ in progress(range(rounds), "search", rounds, "round"):
        result.paths = {name: [] for name in decoders}
        seconds = dict.fromkeys(decoders, 0.0)
        for start in range(0, len(scores), batch):
            for name, decoder in decoders.items():
                found, taken = decoder(scores[start : start + batch])
                result.paths[name] += found
                seconds[name] += taken
        for name in decoders:
            result.seconds[name].append(seconds[name])
    return result


def searching(search: Search, options: SearchOptions) -> Decoder:
    """The search by k2 or by the kernel."""

    def decode(matrices: Sequence[np.ndarray]) -> tuple[list[Best], float]:
        before, found = search.seconds, []
        for outcome in search(list(matrices), options):
            if outcome.hypothesis is None:
                raise UserError(f"no words were found: {outcome.reason}")
            found.append(Best(outcome.hypothesis.words or [], outcome.hypothesis.acoustic + outcome.hypothesis.graph))
        return found, search.seconds - before

    return decode


def kaldi(graph: Path, options: SearchOptions) -> Decoder:
    """Kaldi's FasterDecoder, or LatticeFasterDecoder if ``options`` ask for lattices."""
    fst = kaldifst.StdVectorFst.read(str(graph))  # the decoders keep no reference to it
    decoder = _lattice_faster(fst, options) if options.lattice else _faster(fst, options)

    def decode(matrices: Sequence[np.ndarray]) -> tuple[list[Best], float]:
        started = time.thread_time()
        found = [decoder(np.ascontiguousarray(matrix * np.float32(options.acoustic_scale))) for matrix in matrices]
        taken = time.thread_time() - started
        if fst is None or None in found:
            raise UserError("Kaldi's decoder reached no final state: give a wider --beam")
        return [path for path in found if path is not None], taken

    return decode


def _faster(fst: Any, options: SearchOptions) -> Callable[[np.ndarray], Best | None]:
    settings = kaldi_decoder.FasterDecoderOptions()
    settings.beam, settings.max_active, settings.min_active = options.beam, options.max_active, options.min_active
    decoder = kaldi_decoder.FasterDecoder(fst, settings)

    def decode(scores: np.ndarray) -> Best | None:
        decoder.decode(kaldi_decoder.DecodableCtc(scores))
        reached, lattice = decoder.get_best_path()
        if not reached:
            return None
        _, _, words, weight = kaldifst.get_linear_symbol_sequence(lattice)
        return Best(list(words), -(weight.value1 + weight.value2))

    return decode


def _lattice_faster(fst: Any, options: SearchOptions) -> Callable[[np.ndarray], Best | None]:
    settings = khg.LatticeFasterDecoderConfig()
    settings.beam, settings.max_active, settings.min_active = options.beam, options.max_active, options.min_active
    settings.lattice_beam, settings.determinize_lattice = options.lattice_beam, False
    decoder, topology = khg.LatticeFasterDecoder(fst, settings), khg.HmmTopology()
    topology.read(TOPOLOGY)
    transitions = khg.TransitionModel(khg.monophone_context_dependency([1], [0, 1]), topology)

    def decode(scores: np.ndarray) -> Best | None:
        decodable = khg.DecodableCtc(scores)
        reached, _, words, score = khg.decode_utterance_lattice_faster(decoder, decodable, transitions, "", False)
        return Best(list(words), score) if reached else None

    return decode


def row(result: Comparison, options: SearchOptions, cuts: Sequence[MonoCut], words: Words) -> dict[str, Any]:
    """A line of the table."""
    audio, texts = sum(cut.duration for cut in cuts), [words.split(cut.supervisions[0].text or "") for cut in cuts]
    errors = {
        name: sum(
            kaldialign.edit_distance(text, words.text(path.words).split())["total"]
            for text, path in zip(texts, paths, strict=True)
        )
        for name, paths in result.paths.items()
    }
    return {
        "beam": options.beam,
        "max active": options.max_active,
        "lattices": "yes" if options.lattice else "no",
        **{f"{name} RTF": float(np.median(seconds)) / audio for name, seconds in result.seconds.items()},
        "kernel : k2": result.ratio("kernel", "k2"),
        "kernel : Kaldi": result.ratio("kernel", "Kaldi"),
        **{f"{name} errors": count for name, count in errors.items()},
        "of words": sum(map(len, texts)),
        "words as k2": f"{result.same_words('kernel', 'k2')} of {len(cuts)}",
        "words as Kaldi": f"{result.same_words('kernel', 'Kaldi')} of {len(cuts)}",
        "difference from k2": result.largest_difference("kernel", "k2"),
        "difference from Kaldi": result.largest_difference("kernel", "Kaldi"),
    }


def main(config: Config) -> None:
    if kernel.library() is None:
        raise UserError("the kernel needs a C++ compiler (CXX, c++, g++ or clang++): install one")
    description = read_json(config.graph / "graph.json")
    num_pdfs = int(description["num_pdfs"])
    python = find_k2_python(config.k2_python)
    scorer = load_scorer(config.model, config.features, num_pdfs, description.get("silence_pdfs", ()))
    prepared = prepared_graph(config.graph, python)
    searches = {"kernel": Search(prepared, "kernel", num_pdfs), "k2": Search(prepared, python, num_pdfs)}
    cuts = list(itertools.islice(CutSet.from_file(config.cuts), config.utterances))
    scores = [scorer(cut) for cut in progress(cuts, "score", len(cuts), "utterance")]
    rows, agree = [], True
    kinds = (False, True) if config.lattices else (False,)
    for beam, max_active, lattice in itertools.product(config.beam, config.max_active, kinds):
        options = SearchOptions(
            beam=beam, max_active=max_active, acoustic_scale=config.acoustic_scale, lattice=lattice,
            lattice_beam=config.lattice_beam,
        )  # fmt: skip
        decoders = {name: searching(search, options) for name, search in searches.items()}
        decoders["Kaldi"] = kaldi(config.graph / "HCLG.fst", options)
        result = compare(decoders, scores, config.rounds, config.batch)
        rows.append(row(result, options, cuts, Words(config.graph)))
        if max_active == max(config.max_active):
            same = result.same_words("kernel", "Kaldi") == len(cuts)
            agree &= same and result.largest_difference("kernel", "Kaldi") <= config.tolerance
    for search in searches.values():
        search.close()
    bench.report(config, rows, f"{len(cuts)} utterances, scale {config.acoustic_scale:g}")
    if config.strict and not agree:
        raise UserError("the decoders disagree: try a wider --beam, then check the graph")


if __name__ == "__main__":
    run(Config, main)
