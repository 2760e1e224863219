"""What the hmm stages leave behind: cuts with senones and alignments, skipped utterances, figures."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lhotse import CutSet, NumpyFilesWriter
from lhotse.cut import MonoCut
from lhotse.supervision import AlignmentItem
from lhotse.utils import fastcopy

from asr_kd.corpora.manifests import Skipped, jsonl_writer, require_some, write_skipped
from asr_kd.hmm.align import Aligned
from asr_kd.hmm.corpus import chunks, most_chunks
from asr_kd.hmm.words import Lexicon
from asr_kd.parallel import run_in_order
from asr_kd.storage import UserError, atomic_open, copy_file, save_array, write_json

FRAME_SHIFT = 0.01  # seconds
#: What a folder needs to score and align, beside hmm.json.
MODELS = ("topo", "tree", "mono.mdl", "tri.mdl", "frontend.json", "cmvn.json", "cmvn_speakers.npy", "cmvn_global.npy")


class Source(Protocol):
    """Finds alignments of a chunk of cuts, in a worker process: it must pickle."""

    def __call__(self, cuts: Sequence[MonoCut]) -> tuple[list[Aligned | str], Lexicon]: ...


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
    executor: Executor, source: Source, cuts: Iterable[MonoCut], out: Path, role: str, num_pdfs: int,
    about: int | None = None,
) -> Figures:  # fmt: skip
    """Write cuts_ROLE.jsonl.gz with alignments, their senones, skipped_ROLE.tsv and guessed_ROLE.tsv.

    Raises:
        UserError: not one cut of the role could be aligned.
    """
    out = out.resolve()  # manifests name their arrays by path
    work = out / "chunks" / role
    results = (work / f"{i:05d}.jsonl" for i in itertools.count())
    jobs = (
        StoreJob(chunk, source, out / "senones" / role / f"{i:05d}", work / f"{i:05d}.jsonl", num_pdfs)
        for i, chunk in enumerate(chunks(iter(cuts)))
    )
    total = Figures(np.zeros(num_pdfs, dtype=np.int64))
    with jsonl_writer(out / f"cuts_{role}.jsonl.gz") as add:
        for part in run_in_order(executor, store_chunk, jobs, f"alignment of {role}", "chunk", about):
            total.add(part)
            for line in next(results).read_text(encoding="utf-8").splitlines():
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


def align_roles(
    executor: Executor, source: Source, features: Path, out: Path, num_pdfs: int, roles: Sequence[str] = ()
) -> dict[str, Figures]:
    """Align the roles (all of them by default) that ``features`` has cuts of."""
    return {
        role: store_role(executor, source, load_cuts(features, role), out, role, num_pdfs, most_chunks(features, role))
        for role in roles or roles_of(features)
    }


def finish(out: Path, description: Mapping[str, Any], figures: Mapping[str, Figures]) -> dict[str, Any]:
    """Write hmm.json and pdf_counts.npy, print a line a role; returns what the completion mark keeps."""
    if "train" in figures:
        save_array(out / "pdf_counts.npy", figures["train"].pdf_counts)
    roles = {role: one.summary(description["silence_pdfs"]) for role, one in figures.items()}
    write_json(out / "hmm.json", {**description, "roles": roles})
    for role, one in roles.items():
        print(f"{role}: " + ", ".join(f"{name} {value}" for name, value in one.items()), flush=True)
    return {"num_pdfs": description["num_pdfs"], "roles": roles}


def copy_models(source: Path, target: Path) -> None:
    """Copy what a folder of asr_kd.hmm scores and aligns with."""
    for name in MODELS:
        copy_file(source / name, target / name)
