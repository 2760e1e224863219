"""Forced alignment of cuts with any pdf scores, and what is stored about it: the one path for GMMs, networks
and alignments made elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from lhotse import CutSet, NumpyFilesWriter
from lhotse.cut import MonoCut
from lhotse.supervision import AlignmentItem
from lhotse.utils import fastcopy

from asr_kd.corpora.manifests import Skipped, jsonl_writer, require_some, write_skipped
from asr_kd.hmm.corpus import chunks
from asr_kd.hmm.kaldi_io import read_model, read_tree
from asr_kd.hmm.passes import phones_of
from asr_kd.hmm.viterbi import BEAM, RETRY_BEAM, GraphCompiler, Transitions, align, graph_labels
from asr_kd.hmm.words import Lexicon, Words, locate_words
from asr_kd.parallel import run_all
from asr_kd.storage import UserError, atomic_open, read_json

if TYPE_CHECKING:
    from kaldi_hmm_gmm import ContextDependency

FRAME_SHIFT = 0.01  # seconds

#: (T, C) float32 log-likelihoods of a cut.
Scorer = Callable[[MonoCut], np.ndarray]


@dataclass
class Aligned:
    """One utterance's alignment.

    Attributes:
        senones: (T,) int32 pdf-ids.
        phones: (phone, first frame, one past the last).
        words: (word, first frame, one past the last).
        log_likelihood: of the path, per frame.
    """

    senones: np.ndarray
    phones: list[tuple[str, int, int]] = field(default_factory=list)
    words: list[tuple[str, int, int]] = field(default_factory=list)
    log_likelihood: float = 0.0


def align_cuts(
    transitions: Transitions,
    tree: ContextDependency,
    words: Words,
    scorer: Scorer,
    cuts: Sequence[MonoCut],
    beam: float = BEAM,
    retry_beam: float = RETRY_BEAM,
) -> tuple[list[Aligned | str], Lexicon]:
    """Align cuts with their transcripts.

    Args:
        transitions: transition model.
        tree: the model's.
        words: pronunciations.
        scorer: log-likelihoods (T, C) of a cut.
        cuts: a few hundred at most; their lexicon is compiled once.
        beam: of the search; a cut that fails is tried again with ``retry_beam``.

    Returns:
        for each cut its alignment, or why there is none; and the pronunciations that had to be guessed.
    """
    texts = [(cut.supervisions[0].text or "").split() for cut in cuts]
    lexicon, guessed = words.lexicon(texts)
    compiler = GraphCompiler(transitions, tree, lexicon, words.phones)
    results: list[Aligned | str] = []
    for cut, text in zip(cuts, texts, strict=True):
        if not text:
            results.append("empty transcript")
            continue
        graph = compiler(text)
        labels = graph_labels(graph)
        scores = scorer(cut)
        if scores.shape != (cut.num_frames, transitions.num_pdfs):
            raise UserError(
                f"scores of {cut.id} have the shape {scores.shape} instead of "
                f"{(cut.num_frames, transitions.num_pdfs)}: use a model of these senones"
            )
        found = align(graph, transitions, labels, scores[:, transitions.pdf[labels]], beam, retry_beam)
        if found is None:
            results.append(f"{len(scores)} frames do not align with the transcript")
        else:
            results.append(_describe(*found, transitions, text, lexicon, words.phones))
    return results, guessed


def _describe(
    path: np.ndarray, log_likelihood: float, transitions: Transitions, text: list[str], lexicon: Lexicon,
    names: Sequence[str],
) -> Aligned:  # fmt: skip
    ids, first = phones_of(path, transitions)
    bounds = [*first.tolist(), len(path)]
    phones = [names[i] for i in ids]
    spans = locate_words(phones, text, lexicon)
    return Aligned(
        transitions.pdf[path].astype(np.int32),
        [(phone, bounds[i], bounds[i + 1]) for i, phone in enumerate(phones)],
        [(word, bounds[start], bounds[end]) for word, (start, end) in zip(text, spans, strict=True)],
        log_likelihood,
    )


# ---------------------------------------------------------------- storage


def attach(cut: MonoCut, aligned: Aligned, writer: NumpyFilesWriter) -> MonoCut:
    """The cut with ``senones`` (TemporalArray) and its supervision's phone and word alignments, in seconds."""
    array = writer.store_array(cut.id, aligned.senones, frame_shift=FRAME_SHIFT, temporal_dim=0, start=cut.start)
    alignment = {
        kind: [_item(cut, *one) for one in items]
        for kind, items in (("phone", aligned.phones), ("word", aligned.words))
        if items
    }
    supervision = fastcopy(cut.supervisions[0], alignment=alignment or None)
    return fastcopy(cut, supervisions=[supervision], custom={**(cut.custom or {}), "senones": array})


def _item(cut: MonoCut, symbol: str, first: int, end: int) -> AlignmentItem:
    start = round(first * FRAME_SHIFT, 3)
    return AlignmentItem(symbol, start, round(min(end * FRAME_SHIFT, cut.duration) - start, 4))


class Source(Protocol):
    """Finds alignments of a chunk of cuts, in a worker process: it must pickle."""

    def __call__(self, cuts: Sequence[MonoCut]) -> tuple[list[Aligned | str], Lexicon]: ...


@dataclass(frozen=True)
class ScoredAlignment:
    """Forced alignment with the model in a folder of asr_kd.hmm and any scores."""

    gmm: Path
    lang: Path
    scorer: Scorer

    def __call__(self, cuts: Sequence[MonoCut]) -> tuple[list[Aligned | str], Lexicon]:
        transitions = Transitions.of(read_model(self.gmm / "tri.mdl")[0])
        tree = read_tree(self.gmm / "tree")
        return align_cuts(transitions, tree, Words.load(self.lang), self.scorer, cuts)


@dataclass(frozen=True)
class StoreJob:
    cuts: Sequence[MonoCut]
    source: Source
    storage: Path
    result: Path
    num_pdfs: int


@dataclass
class Figures:
    """What is worth knowing about a role's alignment."""

    pdf_counts: np.ndarray
    utterances: int = 0
    frames: int = 0
    log_likelihood: float = 0.0
    skipped: list[Skipped] = field(default_factory=list)
    guessed: Lexicon = field(default_factory=dict)

    def add(self, other: Figures) -> None:
        self.pdf_counts += other.pdf_counts
        self.utterances += other.utterances
        self.frames += other.frames
        self.log_likelihood += other.log_likelihood
        self.skipped += other.skipped
        self.guessed.update(other.guessed)

    def summary(self, silence_pdfs: Sequence[int]) -> dict[str, Any]:
        return {
            "utterances": self.utterances,
            "skipped": len(self.skipped),
            "frames": self.frames,
            "silence_share": round(float(self.pdf_counts[list(silence_pdfs)].sum() / max(self.frames, 1)), 4),
            "log_likelihood": round(self.log_likelihood / max(self.frames, 1), 4),
            "guessed_words": len(self.guessed),
        }


def store_chunk(job: StoreJob) -> Figures:
    """Align a chunk, store its senones, and write its cuts to ``job.result``."""
    results, guessed = job.source(job.cuts)
    figures = Figures(np.zeros(job.num_pdfs, dtype=np.int64), guessed=guessed)
    writer = NumpyFilesWriter(job.storage)
    job.result.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(job.result) as file:
        for cut, result in zip(job.cuts, results, strict=True):
            if isinstance(result, str):
                figures.skipped.append((cut.id, result))
                continue
            file.write(json.dumps(attach(cut, result, writer).to_dict()) + "\n")
            figures.pdf_counts += np.bincount(result.senones, minlength=job.num_pdfs)
            figures.utterances += 1
            figures.frames += len(result.senones)
            figures.log_likelihood += result.log_likelihood * len(result.senones)
    return figures


def store_role(
    executor: Executor, source: Source, cuts: Iterable[MonoCut], out: Path, role: str, num_pdfs: int
) -> Figures:
    """Write cuts_ROLE.jsonl.gz with alignments, their senones, skipped_ROLE.tsv and guessed_ROLE.tsv.

    Raises:
        UserError: not one cut of the role could be aligned.
    """
    out = out.resolve()  # manifests name their arrays by path
    work = out / "chunks" / role
    jobs = [
        StoreJob(chunk, source, out / "senones" / role / f"{i:05d}", work / f"{i:05d}.jsonl", num_pdfs)
        for i, chunk in enumerate(chunks(iter(cuts)))
    ]
    parts = dict(run_all(executor, store_chunk, jobs, f"alignment of {role}", "chunk"))
    total = Figures(np.zeros(num_pdfs, dtype=np.int64))
    with jsonl_writer(out / f"cuts_{role}.jsonl.gz") as add:
        for number, job in enumerate(jobs):
            total.add(parts[number])
            for line in job.result.read_text(encoding="utf-8").splitlines():
                add(json.loads(line))
    write_skipped(out, role, total.skipped)
    with atomic_open(out / f"guessed_{role}.tsv") as file:
        for word in sorted(total.guessed):
            file.writelines(f"{word}\t{' '.join(one)}\n" for one in total.guessed[word])
    require_some(total.utterances, total.skipped, role, out)
    shutil.rmtree(out / "chunks")
    return total


def roles_of(folder: Path) -> list[str]:
    """Roles that a folder has cuts of, train first.

    Raises:
        UserError: there are none.
    """
    roles = sorted(p.name[len("cuts_") : -len(".jsonl.gz")] for p in Path(folder).glob("cuts_*.jsonl.gz"))
    if not roles:
        raise UserError(f"{folder} has no cuts_ROLE.jsonl.gz: run python -m asr_kd.features first")
    return sorted(roles, key=lambda role: role != "train")


def load_cuts(folder: Path, role: str) -> CutSet:
    return CutSet.from_jsonl_lazy(folder / f"cuts_{role}.jsonl.gz")


def silence_pdfs_of(folder: Path) -> list[int]:
    return [int(i) for i in read_json(folder / "hmm.json")["silence_pdfs"]]
