"""Training passes over one chunk of utterances, run in worker processes: alignment and sufficient statistics."""

from __future__ import annotations

import functools
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from kaldi_hmm_gmm import ContextDependency

from asr_kd.common.parallel import keep_freed_memory
from asr_kd.common.storage import load_array, read_json, save_array
from asr_kd.hmm.cepstra import apply_transform
from asr_kd.hmm.corpus import TRANSFORMS, Chunk
from asr_kd.hmm.gmm import Accumulators, Gmms, accumulate
from asr_kd.hmm.kaldi_io import read_model, read_transition_model, read_tree
from asr_kd.hmm.transforms import apply_fmllr
from asr_kd.hmm.tree import ContextStats
from asr_kd.hmm.viterbi import (
    Graph,
    GraphCompiler,
    Transitions,
    equal_alignment,
    phone_segments,
    read_graphs,
    viterbi_align,
    write_graphs,
)

ALIGNMENT = "alignment.npy"


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model in training: decision tree, Kaldi ``.mdl``, feature transform.

    Attributes:
        adapted: whether features are transformed by speaker too (``TRANSFORMS`` of each chunk).
    """

    tree: Path
    mdl: Path
    frontend: Path
    adapted: bool = False


@dataclass
class PassStatistics:
    """Result of a pass.

    Attributes:
        gmm: sufficient statistics of the GMMs.
        transitions: occupation counts of the transition-ids.
        failed: ids of the utterances that could not be aligned.
    """

    gmm: Accumulators
    transitions: np.ndarray
    failed: list[str] = field(default_factory=list)

    def __iadd__(self, other: PassStatistics) -> PassStatistics:
        self.gmm += other.gmm
        self.transitions += other.transitions
        self.failed += other.failed
        return self


@functools.lru_cache(maxsize=1)
def load(model: ModelFiles) -> tuple[Transitions, Gmms, np.ndarray]:
    keep_freed_memory()
    transitions, gmms = read_model(model.mdl)
    return Transitions.of(transitions), gmms, np.array(read_json(model.frontend)["transform"])


#: "equal": states of equal duration (flat start); "viterbi": the most probable path; "keep": the previous alignment.
AlignmentMode = Literal["equal", "viterbi", "keep"]


@dataclass(frozen=True)
class PassJob:
    """One pass over one chunk.

    Attributes:
        max_frames: longer utterances are left out of the alignment (0: none).
    """

    chunk: Path
    model: ModelFiles
    mode: AlignmentMode
    max_frames: int = 0


class ChunkFeatures:
    """The features (T, E) of the utterances of a chunk, by number, and of the whole chunk."""

    def __init__(self, chunk: Chunk, model: ModelFiles, transform: np.ndarray) -> None:
        self._bounds = list(itertools.pairwise(chunk.bounds.tolist()))
        transform = transform.astype(np.float32)
        #: Before the transforms of the speakers.
        self.unadapted = np.concatenate([apply_transform(chunk.cepstra[a:b], transform) for a, b in self._bounds])
        self.all = self.unadapted
        if model.adapted:
            speakers = dict(zip(chunk.voices, load_array(chunk.folder / TRANSFORMS), strict=True))
            self.all = np.empty_like(self.unadapted)
            for (a, b), speaker in zip(self._bounds, chunk.speakers, strict=True):
                self.all[a:b] = apply_fmllr(self.unadapted[a:b], speakers[speaker])

    def __getitem__(self, number: int) -> np.ndarray:
        return self.all[slice(*self._bounds[number])]


def run_pass(job: PassJob) -> PassStatistics:
    """Align a chunk, store the alignment next to it, and accumulate statistics."""
    chunk = Chunk.load(job.chunk)
    transitions, gmms, transform = load(job.model)
    features = ChunkFeatures(chunk, job.model, transform)
    failed: list[str] = []
    if job.mode == "keep":
        alignment = load_array(job.chunk / ALIGNMENT)
    else:
        alignment, failed = _align_chunk(job, chunk, transitions, gmms, features)
        save_array(job.chunk / ALIGNMENT, alignment)
    aligned = alignment > 0
    stats = accumulate(gmms, features.all[aligned], transitions.pdf[alignment[aligned]])
    return PassStatistics(stats, np.bincount(alignment[aligned], minlength=len(transitions.pdf)), failed)


def _align_chunk(
    job: PassJob, chunk: Chunk, transitions: Transitions, gmms: Gmms, features: ChunkFeatures
) -> tuple[np.ndarray, list[str]]:
    """Return the transition-ids (T,) of a chunk (0: not aligned), and the utterances that could not be aligned."""
    alignment = np.zeros(len(chunk.cepstra), dtype=np.int32)
    failed: list[str] = []
    for number, ((name, span, _), graph) in enumerate(
        zip(chunk.utterances(), _graphs(job, chunk, transitions), strict=True)
    ):
        if 0 < job.max_frames < span.stop - span.start:
            continue
        if job.mode == "equal":
            path = equal_alignment(graph, span.stop - span.start, zlib.crc32(name.encode()) >> 1)
        else:
            pdfs, inverse = np.unique(transitions.pdf[graph.transition_ids], return_inverse=True)
            result = viterbi_align(graph, transitions, gmms.scores(features[number], pdfs)[:, inverse])
            path = result[0] if result else None
        if path is None:
            failed.append(name)
        else:
            alignment[span] = path
    return alignment, failed


def _graphs(job: PassJob, chunk: Chunk, transitions: Transitions) -> Iterator[Graph]:
    """The graphs of a chunk's utterances, which are compiled once for each tree."""
    path = job.chunk / f"{job.model.tree.stem}.graphs"
    if not path.is_file():
        for outdated in job.chunk.glob("*.graphs"):
            outdated.unlink()
        tree = read_tree(job.model.tree)
        compiler = GraphCompiler(transitions, tree, chunk.lexicon, chunk.probabilities, chunk.phones)
        write_graphs(path, (Graph.of(compiler(words), transitions) for words in chunk.words))
    return read_graphs(path)


def triphone_contexts(path: np.ndarray, transitions: Transitions, pdf_class: np.ndarray) -> np.ndarray:
    """Left, centre, right phone and pdf-class of each frame, (T, 4) int32, of an utterance's transition-ids (T,)."""
    phones, first = phone_segments(path, transitions)
    padded = np.concatenate([[0], phones, [0]])
    position = np.repeat(np.arange(len(phones)), np.diff(np.append(first, len(path))))
    columns = [padded[position], padded[position + 1], padded[position + 2], pdf_class[path]]
    return np.stack(columns, axis=1).astype(np.int32)


def _pdf_classes(transitions: Transitions) -> np.ndarray:
    """The pdf-class of each transition-id."""
    topology = {p: transitions.model.topo.topology_for_phone(p) for p in transitions.model.phones}
    table = [0] + [
        topology[int(p)][int(s)].forward_pdf_class
        for p, s in zip(transitions.phone[1:], transitions.state[1:], strict=True)
    ]
    return np.array(table)


def tree_statistics(job: PassJob) -> ContextStats:
    """Accumulate the statistics for tree building over the stored alignment of a chunk."""
    chunk = Chunk.load(job.chunk)
    transitions, _, transform = load(job.model)
    pdf_class = _pdf_classes(transitions)
    alignment = load_array(job.chunk / ALIGNMENT)
    source = ChunkFeatures(chunk, job.model, transform)
    contexts, features = [], []
    for number, (_, span, _) in enumerate(chunk.utterances()):
        path = alignment[span]
        if path[0]:
            contexts.append(triphone_contexts(path, transitions, pdf_class))
            features.append(source[number])
    if not contexts:
        width = 1 + 2 * len(transform)
        return ContextStats(np.zeros((0, 4), np.int32), np.zeros((0, width)))
    return ContextStats.collect(np.concatenate(contexts), np.concatenate(features))


@dataclass(frozen=True)
class ConvertJob:
    """Conversion of a chunk's alignment to the transition-ids of another model with the same topology."""

    chunk: Path
    old: ModelFiles
    new: ModelFiles


def convert_alignment(job: ConvertJob) -> None:
    """Rewrite the stored alignment of a chunk."""
    chunk = Chunk.load(job.chunk)
    old = load(job.old)[0]
    new = Transitions.of(read_transition_model(job.new.mdl))
    tree = read_tree(job.new.tree)
    pdf_class = _pdf_classes(old)
    alignment = load_array(job.chunk / ALIGNMENT)
    aligned = alignment > 0
    paths = [alignment[span] for _, span, _ in chunk.utterances() if alignment[span][0]]
    if paths:
        contexts = np.concatenate([triphone_contexts(path, old, pdf_class) for path in paths])
        alignment[aligned] = _convert(alignment[aligned], contexts, old, new, tree)
    save_array(job.chunk / ALIGNMENT, alignment)


def _convert(
    path: np.ndarray, contexts: np.ndarray, old: Transitions, new: Transitions, tree: ContextDependency
) -> np.ndarray:
    """The transition-ids (T,) of frames with these ``triphone_contexts`` (T, 4) in the new model."""
    keys = (*contexts.T, old.state[path])
    shape = tuple(int(key.max()) + 1 for key in keys)
    unique, inverse = np.unique(np.ravel_multi_index(keys, shape), return_inverse=True)
    states = []
    for left, centre, right, class_, state in np.transpose(np.unravel_index(unique, shape)).tolist():
        _, pdf = tree.compute([left, centre, right], class_)
        states.append(new.state_index[centre, state, pdf])
    offset = path - old.first[old.transition_state[path]]  # index of the transition within its state
    return (new.first[np.array(states)[inverse]] + offset).astype(np.int32)
