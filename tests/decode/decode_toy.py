"""A toy task for decoding: 8 phones, 20 words, HCLG built with Kaldi's own tools, features that reveal the senone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import kaldi_hmm_gmm as khg
import kaldifst
import numpy as np
import torch
from front_ends import front_end
from lhotse import CutSet, Features, MonoCut, SupervisionSegment
from safetensors.torch import save_file

from asr_kd.common.storage import write_json
from asr_kd.lang import ngram
from asr_kd.lang.arpa import write_arpa
from asr_kd.lang.fst import grammar_fst
from asr_kd.models.dnn import dnn

PHONES, WORDS = 8, 20
PDFS = 3 * PHONES


def toy_topology() -> khg.HmmTopology:
    states = "".join(
        f"<State> {i} <PdfClass> {i} <Transition> {i} 0.6 <Transition> {i + 1} 0.4 </State>\n" for i in range(3)
    )
    phones = " ".join(str(phone) for phone in range(1, PHONES + 1))
    topology = khg.HmmTopology()
    topology.read(
        f"<Topology>\n<TopologyEntry>\n<ForPhones>\n{phones}\n</ForPhones>\n{states}<State> 3 </State>\n"
        "</TopologyEntry>\n</Topology>\n"
    )
    return topology


def toy_lexicon() -> list[tuple[int, ...]]:
    """Pronunciations of words 1 to 20 in phones 2 to 8 (1 is silence)."""
    rng = np.random.default_rng(5)
    pronunciations: set[tuple[int, ...]] = set()
    while len(pronunciations) < WORDS:
        pronunciations.add(tuple(int(p) for p in rng.integers(2, PHONES + 1, size=rng.integers(2, 5))))
    return sorted(pronunciations)


def toy_lexicon_fst() -> kaldifst.StdVectorFst:
    """State 0: start, 1: between words (final), 2: before a silence."""
    lines, states = ["0 1 0 0 0.7", "0 2 0 0 0.7", "2 1 1 0", "1"], 3
    for word, phones in enumerate(toy_lexicon(), 1):
        state, label = 1, word
        for phone in phones[:-1]:
            lines.append(f"{state} {states} {phone} {label}")
            state, label, states = states, 0, states + 1
        lines += [f"{state} {end} {phones[-1]} {label} 0.7" for end in (1, 2)]
    return kaldifst.compile("\n".join(lines))


def toy_grammar() -> kaldifst.StdVectorFst:
    """A bigram with a back-off state; the weights are random, so that no two paths have the same score."""
    rng = np.random.default_rng(6)
    lines, backoff = [], WORDS + 1
    for history in range(WORDS + 1):
        followers = rng.permutation(WORDS)[:10] + 1
        lines += [f"{history} {w} {w} {w} {rng.uniform(1, 4):.4f}" for w in followers]
        lines += [f"{history} {backoff} 0 0 {rng.uniform(1, 3):.4f}", f"{history} {rng.uniform(1, 4):.4f}"]
    lines += [f"{backoff} {w} {w} {w} {rng.uniform(2, 5):.4f}" for w in range(1, WORDS + 1)]
    return kaldifst.compile("\n".join(lines), keep_state_numbering=True)


def toy_arpa(path: Path, order: int, prune: float = 0.0) -> None:
    """A Kneser-Ney model of 300 random sentences in which some words like to follow others."""
    rng, likes = np.random.default_rng(7), np.random.default_rng(8).dirichlet(np.full(WORDS, 0.3), WORDS * WORDS)
    sentences = []
    for _ in range(300):
        words = [int(rng.integers(WORDS)), int(rng.integers(WORDS))]
        while rng.random() < 0.8:
            words.append(int(rng.choice(WORDS, p=likes[words[-2] * WORDS + words[-1]])))
        sentences.append(words)
    counts = ngram.count(sentences, WORDS, order)
    model = ngram.kneser_ney(counts)
    if prune:
        model = ngram.prune(model, [counts], [1.0], prune)
    write_arpa(path, model, [f"W{word:02d}" for word in range(1, WORDS + 1)])


def toy_arpa_grammar(arpa: Path) -> kaldifst.StdVectorFst:
    """The grammar of an ARPA model, with epsilons where it backs off."""
    words = arpa.with_suffix(".words")
    names = ["<eps>", *(f"W{i:02d}" for i in range(1, WORDS + 1)), "#0", "<s>", "</s>"]
    words.write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)))
    grammar_fst(arpa, words, arpa.with_suffix(".fst"))
    grammar = kaldifst.StdVectorFst.read(str(arpa.with_suffix(".fst")))
    lines = [line.replace(f" {WORDS + 1} 0 ", " 0 0 ") for line in fst_lines(grammar)]
    lines.sort(key=lambda line: int(line.split()[0]) != grammar.start)  # the text begins with the start state
    sorted_by_input = kaldifst.compile("\n".join(lines))
    kaldifst.arcsort(sorted_by_input, "ilabel")
    return sorted_by_input


def toy_graph(folder: Path, arpa: Path | None = None) -> None:
    """The graph of ``toy_grammar``, or of an ARPA model, of which it gets a copy."""
    lexicon, grammar = toy_lexicon_fst(), toy_arpa_grammar(arpa) if arpa else toy_grammar()
    kaldifst.arcsort(lexicon, "olabel")
    kaldifst.arcsort(grammar, "ilabel")
    context, labels = kaldifst.compose_context([], 1, 0, kaldifst.compose(lexicon, grammar))
    topology = toy_topology()
    tree = khg.monophone_context_dependency(list(range(1, PHONES + 1)), [0] + [3] * PHONES)
    transitions = khg.TransitionModel(tree, topology)
    h, _ = khg.get_h_transducer(labels, tree, transitions, khg.HTransducerConfig())
    kaldifst.arcsort(h, "olabel")
    kaldifst.arcsort(context, "ilabel")
    hclg = khg.add_self_loops(
        self_loop_scale=0.1, disambig_syms=[], reorder=True, trans_model=transitions,
        ifst=kaldifst.compose(h, context),
    )  # fmt: skip
    pdfs = [0, *(pdf + 1 for pdf in transitions.transition_id_to_pdf_array()[1:])]
    text = "\n".join(fst_lines(hclg, pdfs))
    folder.mkdir(parents=True)
    kaldifst.compile(text, keep_state_numbering=True).write(str(folder / "HCLG.fst"))
    words = ["<eps>", *(f"W{i:02d}" for i in range(1, WORDS + 1))]
    (folder / "words.txt").write_text("".join(f"{w} {i}\n" for i, w in enumerate(words)))
    write_json(folder / "graph.json", {"num_pdfs": PDFS, "silence_pdfs": []})
    states = {str(phone): [[3 * (phone - 1) + state] for state in range(3)] for phone in range(2, PHONES + 1)}
    lexicon_of = {f"W{word:02d}": [list(map(str, phones))] for word, phones in enumerate(toy_lexicon(), 1)}
    table = {"silence": [0, 1, 2], "phones": states, "lexicon": lexicon_of}
    write_json(folder / "pronunciations.json", table)
    if arpa:
        (folder / "lm.arpa").write_bytes(arpa.read_bytes())


def fst_lines(fst: kaldifst.StdVectorFst, labels: list[int] | None = None) -> Iterator[str]:
    for state in range(fst.num_states):
        for arc in kaldifst.ArcIterator(fst, state):
            label = labels[arc.ilabel] if labels else arc.ilabel
            yield f"{state} {arc.nextstate} {label} {arc.olabel} {arc.weight.value:.9g}"
        if np.isfinite(fst.final(state).value):
            yield f"{state} {fst.final(state).value:.9g}"


def spoken_pdfs(rng: np.random.Generator, words: list[int]) -> np.ndarray:
    """A plausible pdf for each frame of a sentence."""
    return spoken(rng, words)[0]


def spoken(rng: np.random.Generator, words: list[int]) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """A plausible pdf for each frame of a sentence, and the first frame of each word and the one after its last."""
    phones = [1, *(p for word in words for p in toy_lexicon()[word - 1]), 1]
    states = [3 * (phone - 1) + state for phone in phones for state in range(3)]
    lengths = rng.integers(1, 4, size=len(states))
    starts = np.cumsum([0, *lengths])
    ends = np.cumsum([3, *(3 * len(toy_lexicon()[word - 1]) for word in words)])
    bounds = starts[ends].tolist()
    return np.repeat(states, lengths), list(itertools.pairwise(bounds))


def toy_features(rng: np.random.Generator, words: list[int], noise: float = 0.7) -> np.ndarray:
    """Features (T, 40) whose first 24 columns are the pdf as a one-hot vector plus noise."""
    pdfs = spoken_pdfs(rng, words)
    features = rng.normal(scale=noise, size=(len(pdfs), 40)).astype(np.float32)
    features[np.arange(len(pdfs)), pdfs] += 2
    return features


def toy_model(folder: Path) -> None:
    """A network of one layer that outputs the first 24 columns of the current frame."""
    network = dnn(40, PDFS, layers=1, width=2 * PDFS, left=1, right=1)
    model = network.build()
    weights, columns = dict(model.named_parameters()), torch.arange(PDFS)
    with torch.no_grad():
        for parameter in weights.values():
            parameter.zero_()
        for rows, sign in ((columns, 1.0), (PDFS + columns, -1.0)):
            weights["hidden.0.weight"][rows, 40 + columns] = sign
            weights["output.weight"][columns, rows] = sign
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")
    write_json(folder / "model.json", {"network": network.to_json()})
    np.save(folder / "log_prior.npy", np.full(PDFS, -np.log(PDFS), dtype=np.float32))


def toy_cuts(folder: Path, split: str, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    (folder / split).mkdir(parents=True)
    cuts = []
    for number in range(count):
        name = f"{split}-{number:03d}"
        words = [int(w) for w in rng.integers(1, WORDS + 1, size=rng.integers(1, 7))]
        array = toy_features(rng, words)
        np.save(folder / split / f"{name}.npy", array)
        duration = len(array) / 100
        stored = Features(
            type="kaldi-fbank", num_frames=len(array), num_features=40, frame_shift=0.01, sampling_rate=16000, start=0,
            duration=duration, storage_type="numpy_files", storage_path=str(folder / split), storage_key=f"{name}.npy",
        )  # fmt: skip
        supervision = SupervisionSegment(
            id=name, recording_id=name, start=0, duration=duration, text=" ".join(f"W{w:02d}" for w in words),
            speaker="toy",
        )  # fmt: skip
        cut = MonoCut(id=name, start=0, duration=duration, channel=0, supervisions=[supervision], features=stored)
        cuts.append(cut)
    CutSet.from_cuts(cuts).to_file(folder / f"cuts_{split}.jsonl.gz")


def toy_experiment(root: Path) -> None:
    """The folders graph, model and features (with the splits dev and test) of an experiment."""
    toy_graph(root / "graph")
    toy_model(root / "model")
    features = root / "features"
    toy_cuts(features, "dev", 40, seed=1)
    toy_cuts(features, "test", 70, seed=2)
    write_json(features / "cmvn.json", {**front_end().to_json(), "speakers": []})
    np.save(features / "cmvn_speakers.npy", np.zeros((0, 3, 40)))


def random_scores(seed: int, count: int, longest: int = 120) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(scale=5, size=(int(t), PDFS)).astype(np.float32) for t in rng.integers(20, longest, size=count)]


def aborting_python(folder: Path, python: Path, frames: int) -> Path:
    """An interpreter for the real worker, which calls abort() when it gets a matrix of that many frames."""
    (folder / "aborting.py").write_text(
        "import importlib.util, os, sys\n"
        "spec = importlib.util.spec_from_file_location('worker', sys.argv[1])\n"
        "worker = sys.modules['worker'] = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(worker)\n"
        "search = worker.Searcher.search\n"
        "def poisoned(self, scores, options):\n"
        f"    if any(len(matrix) == {frames} for matrix in scores):\n"
        "        print('[F] somewhere.cu:1 Check failed: something', file=sys.stderr, flush=True)\n"
        "        os.abort()\n"
        "    print('noise on stdout')\n"
        "    return search(self, scores, options)\n"
        "worker.Searcher.search = poisoned\n"
        "worker.main(sys.argv[2:])\n"
    )
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec {python} {folder}/aborting.py "$@"\n')
    script.chmod(0o755)
    return script
