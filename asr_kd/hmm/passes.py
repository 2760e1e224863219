"""One pass over one chunk of the training data: align it, collect statistics.  Runs in worker processes."""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from asr_kd.common.storage import read_json, save_array
from asr_kd.hmm.cepstra import apply_map
from asr_kd.hmm.corpus import Chunk
from asr_kd.hmm.gmm import Accumulators, Gmms, accumulate
from asr_kd.hmm.kaldi_io import read_model, read_transition_model, read_tree
from asr_kd.hmm.tree import ContextStats
from asr_kd.hmm.viterbi import GraphCompiler, Transitions, align, equal_alignment, graph_labels, phones_of

ALIGNMENT = "alignment.npy"


@dataclass(frozen=True)
class Model:
    """Where a model of the training lies."""

    tree: Path
    mdl: Path
    frontend: Path


@dataclass
class Statistics:
    """What a pass found: GMM statistics, frames of each transition-id, which utterances failed."""

    gmm: Accumulators
    transitions: np.ndarray
    failed: list[str] = field(default_factory=list)

    def __iadd__(self, other: Statistics) -> Statistics:
        self.gmm += other.gmm
        self.transitions += other.transitions
        self.failed += other.failed
        return self


@functools.lru_cache(maxsize=1)
def _load(model: Model) -> tuple[Transitions, Gmms, np.ndarray]:
    transitions, gmms = read_model(model.mdl)
    return Transitions.of(transitions), gmms, np.array(read_json(model.frontend)["transform"])


@dataclass(frozen=True)
class PassJob:
    """``how``: "equal" and "viterbi" make a new alignment, "keep" uses the one there is."""

    chunk: Path
    model: Model
    how: str


def run_pass(job: PassJob) -> Statistics:
    """Align a chunk as the job says, keep the alignment beside it, and collect statistics over it."""
    chunk = Chunk.load(job.chunk)
    transitions, gmms, transform = _load(job.model)
    failed: list[str] = []
    if job.how == "keep":
        alignment = np.load(job.chunk / ALIGNMENT, allow_pickle=False)
    else:
        alignment, failed = _new_alignment(job, chunk, transitions, gmms, transform)
        save_array(job.chunk / ALIGNMENT, alignment)
    used = alignment > 0
    features = np.concatenate([apply_map(chunk.cepstra[span], transform) for _, span, _ in chunk.utterances()])
    stats = accumulate(gmms, features[used], transitions.pdf[alignment[used]])
    return Statistics(stats, np.bincount(alignment[used], minlength=len(transitions.pdf)), failed)


def _new_alignment(
    job: PassJob, chunk: Chunk, transitions: Transitions, gmms: Gmms, transform: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Transition-ids (T,) of a chunk (0: not aligned), and the utterances that failed."""
    compiler = GraphCompiler(transitions, read_tree(job.model.tree), chunk.lexicon, chunk.phones)
    alignment = np.zeros(len(chunk.cepstra), dtype=np.int32)
    failed: list[str] = []
    for name, span, words in chunk.utterances():
        graph = compiler(words)
        if job.how == "equal":
            path = equal_alignment(graph, span.stop - span.start, zlib.crc32(name.encode()) >> 1)
        else:
            labels = graph_labels(graph)
            pdfs, back = np.unique(transitions.pdf[labels], return_inverse=True)
            scores = gmms.scores(apply_map(chunk.cepstra[span], transform), pdfs)[:, back]
            found = align(graph, transitions, labels, scores)
            path = found[0] if found else None
        if path is None:
            failed.append(name)
        else:
            alignment[span] = path
    return alignment, failed


def contexts_of(path: np.ndarray, transitions: Transitions, pdf_class: np.ndarray) -> np.ndarray:
    """(T, 4) int32 left, centre, right phone and pdf-class of an utterance's transition-ids."""
    phones, first = phones_of(path, transitions)
    around = np.concatenate([[0], phones, [0]])
    number = np.repeat(np.arange(len(phones)), np.diff(np.append(first, len(path))))
    columns = [around[number], around[number + 1], around[number + 2], pdf_class[path]]
    return np.stack(columns, axis=1).astype(np.int32)


def _pdf_classes(transitions: Transitions) -> np.ndarray:
    """pdf-class of each transition-id."""
    topology = {p: transitions.model.topo.topology_for_phone(p) for p in transitions.model.phones}
    table = [0] + [
        topology[int(p)][int(s)].forward_pdf_class
        for p, s in zip(transitions.phone[1:], transitions.state[1:], strict=True)
    ]
    return np.array(table)


def context_stats(job: PassJob) -> ContextStats:
    """Statistics for a tree over a chunk's present alignment."""
    chunk = Chunk.load(job.chunk)
    transitions, _, transform = _load(job.model)
    pdf_class = _pdf_classes(transitions)
    alignment = np.load(job.chunk / ALIGNMENT, allow_pickle=False)
    contexts, features = [], []
    for _, span, _ in chunk.utterances():
        path = alignment[span]
        if path[0]:
            contexts.append(contexts_of(path, transitions, pdf_class))
            features.append(apply_map(chunk.cepstra[span], transform))
    if not contexts:
        width = 1 + 2 * len(transform)
        return ContextStats(np.zeros((0, 4), np.int32), np.zeros((0, width)))
    return ContextStats.collect(np.concatenate(contexts), np.concatenate(features))


@dataclass(frozen=True)
class ConvertJob:
    """Rewrite a chunk's alignment from one model's transition-ids to another's (same topology)."""

    chunk: Path
    old: Model
    new: Model


def convert(job: ConvertJob) -> None:
    chunk = Chunk.load(job.chunk)
    old = _load(job.old)[0]
    new = Transitions.of(read_transition_model(job.new.mdl))
    tree = read_tree(job.new.tree)
    pdf_class = _pdf_classes(old)
    alignment = np.load(job.chunk / ALIGNMENT, allow_pickle=False)
    for _, span, _ in chunk.utterances():
        path = alignment[span]
        if path[0]:
            alignment[span] = _convert_path(path, old, new, tree, pdf_class)
    save_array(job.chunk / ALIGNMENT, alignment)


def _convert_path(
    path: np.ndarray, old: Transitions, new: Transitions, tree: object, pdf_class: np.ndarray
) -> np.ndarray:
    """An utterance's transition-ids (T,) in the new model."""
    keys = np.column_stack([contexts_of(path, old, pdf_class), old.state[path]])
    unique, back = np.unique(keys, axis=0, return_inverse=True)
    states = []
    for left, centre, right, kind, state in unique.tolist():
        _, pdf = tree.compute([left, centre, right], kind)  # type: ignore[attr-defined]
        states.append(new.state_index[centre, state, pdf])
    offset = path - old.first[old.owner[path]]  # which of the state's transitions
    return (new.first[np.array(states)[back.reshape(-1)]] + offset).astype(np.int32)
