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
from lhotse import NumpyFilesWriter
from lhotse.cut import MonoCut
from lhotse.supervision import AlignmentItem
from lhotse.utils import fastcopy

from asr_kd.common.parallel import run_in_order
from asr_kd.common.storage import atomic_open, copy_file, save_array, write_json
from asr_kd.corpora.cuts import chunks, load_cuts, most_chunks, splits_of
from asr_kd.corpora.manifests import Skipped, jsonl_writer, require_some, write_skipped
from asr_kd.hmm.align import Aligned
from asr_kd.hmm.words import Lexicon

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
    """What is worth knowing about a split's alignment."""

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


def store_split(
    executor: Executor, source: Source, cuts: Iterable[MonoCut], out: Path, split: str, num_pdfs: int,
    about: int | None = None,
) -> Figures:  # fmt: skip
    """Write cuts_SPLIT.jsonl.gz with alignments, their senones, skipped_SPLIT.tsv and guessed_SPLIT.tsv.

    Raises:
        UserError: not one cut of the split could be aligned.
    """
    out = out.resolve()  # manifests name their arrays by path
    work = out / "chunks" / split
    results = (work / f"{i:05d}.jsonl" for i in itertools.count())
    jobs = (
        StoreJob(chunk, source, out / "senones" / split / f"{i:05d}", work / f"{i:05d}.jsonl", num_pdfs)
        for i, chunk in enumerate(chunks(iter(cuts)))
    )
    total = Figures(np.zeros(num_pdfs, dtype=np.int64))
    with jsonl_writer(out / f"cuts_{split}.jsonl.gz") as add:
        for part in run_in_order(executor, store_chunk, jobs, f"alignment of {split}", "chunk", about):
            total.add(part)
            for line in next(results).read_text(encoding="utf-8").splitlines():
                add(json.loads(line))
    write_skipped(out, split, total.skipped)
    with atomic_open(out / f"guessed_{split}.tsv") as file:
        for word in sorted(total.guessed):
            file.writelines(f"{word}\t{' '.join(one)}\n" for one in total.guessed[word])
    require_some(total.utterances, total.skipped, split, out)
    shutil.rmtree(out / "chunks")
    return total


def align_splits(
    executor: Executor, source: Source, features: Path, out: Path, num_pdfs: int, splits: Sequence[str] = ()
) -> dict[str, Figures]:
    """Align the splits (all of them by default) that ``features`` has cuts of."""
    return {
        split: store_split(
            executor, source, load_cuts(features, split), out, split, num_pdfs, most_chunks(features, split)
        )
        for split in splits or splits_of(features)
    }


def finish(out: Path, description: Mapping[str, Any], figures: Mapping[str, Figures]) -> dict[str, Any]:
    """Write hmm.json and pdf_counts.npy, print a line a split; returns what the completion mark keeps."""
    if "train" in figures:
        save_array(out / "pdf_counts.npy", figures["train"].pdf_counts)
    splits = {split: one.summary(description["silence_pdfs"]) for split, one in figures.items()}
    write_json(out / "hmm.json", {**description, "splits": splits})
    for split, one in splits.items():
        print(f"{split}: " + ", ".join(f"{name} {value}" for name, value in one.items()), flush=True)
    return {"num_pdfs": description["num_pdfs"], "splits": splits}


def copy_models(source: Path, target: Path) -> None:
    """Copy what a folder of asr_kd.hmm scores and aligns with."""
    for name in MODELS:
        copy_file(source / name, target / name)
