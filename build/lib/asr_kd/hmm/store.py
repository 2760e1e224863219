"""Output of the hmm stages: cuts with senones and alignments, skipped utterances, figures."""

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

from asr_kd.common.checksums import array_checksum
from asr_kd.common.parallel import run_in_order
from asr_kd.common.storage import atomic_open, copy_file, save_array, write_json
from asr_kd.corpora.cuts import checksum_field, chunks, load_cuts, max_chunks, splits_of, storage_key
from asr_kd.corpora.manifests import Skipped, jsonl_writer, require_utterances, write_skipped
from asr_kd.hmm.align import Alignment
from asr_kd.lang.lexicon import Lexicon
from asr_kd.models.senones import tree_identity

FRAME_SHIFT = 0.01  # seconds
#: The files, in addition to hmm.json, that computing GMM scores and aligning with a folder need.
MODELS = ("topo", "tree", "mono.mdl", "tri.mdl", "frontend.json", "cmvn.json", "cmvn_speakers.npy")
#: Those of models that are trained with fMLLR: Gaussians for features without it; the transforms of some speakers.
OPTIONAL_MODELS = ("si.mdl", "fmllr.ark")


class Aligner(Protocol):
    """Returns the alignment of each cut in a chunk, or the reason why it has none, and the guessed pronunciations.

    It must pickle, since it is called in worker processes.
    """

    def __call__(self, cuts: Sequence[MonoCut]) -> tuple[list[Alignment | str], Lexicon]: ...


def attach_alignment(cut: MonoCut, alignment: Alignment, writer: NumpyFilesWriter) -> MonoCut:
    """Return the cut with ``senones`` (TemporalArray) and, in seconds, the phone and word alignment."""
    key = storage_key(cut.id)
    array = writer.store_array(key, alignment.senones, frame_shift=FRAME_SHIFT, temporal_dim=0, start=cut.start)
    items = {
        kind: [_item(cut, *segment) for segment in segments]
        for kind, segments in (("phone", alignment.phones), ("word", alignment.words))
        if segments
    }
    supervision = fastcopy(cut.supervisions[0], alignment=items or None)
    checksum = {checksum_field("senones"): array_checksum(alignment.senones)}
    return fastcopy(cut, supervisions=[supervision], custom={**(cut.custom or {}), "senones": array, **checksum})


def _item(cut: MonoCut, symbol: str, first: int, end: int) -> AlignmentItem:
    start = round(first * FRAME_SHIFT, 3)
    return AlignmentItem(symbol, start, round(min(end * FRAME_SHIFT, cut.duration) - start, 4))


@dataclass(frozen=True)
class StoreJob:
    """A chunk to align, and where its senones and its cuts are written."""

    cuts: Sequence[MonoCut]
    aligner: Aligner
    storage: Path
    result: Path
    num_pdfs: int


@dataclass
class AlignmentStatistics:
    """Statistics of the alignment of a split.

    Attributes:
        pdf_counts: (C,) number of frames of each senone.
        utterances: number of aligned utterances.
        frames: their number of frames.
        log_likelihood: sum over the frames.
        skipped: the other utterances, with the reasons.
        guessed: pronunciations of words outside the lexicon.
    """

    pdf_counts: np.ndarray
    utterances: int = 0
    frames: int = 0
    log_likelihood: float = 0.0
    skipped: list[Skipped] = field(default_factory=list)
    guessed: Lexicon = field(default_factory=dict)

    def __iadd__(self, other: AlignmentStatistics) -> AlignmentStatistics:
        self.pdf_counts += other.pdf_counts
        self.utterances += other.utterances
        self.frames += other.frames
        self.log_likelihood += other.log_likelihood
        self.skipped += other.skipped
        self.guessed.update(other.guessed)
        return self

    def summary(self, silence_pdfs: Sequence[int]) -> dict[str, Any]:
        """Return the figures for hmm.json."""
        return {
            "utterances": self.utterances,
            "skipped": len(self.skipped),
            "frames": self.frames,
            "silence_share": round(float(self.pdf_counts[list(silence_pdfs)].sum() / max(self.frames, 1)), 4),
            "log_likelihood": round(self.log_likelihood / max(self.frames, 1), 4),
            "guessed_words": len(self.guessed),
        }


def store_chunk(job: StoreJob) -> AlignmentStatistics:
    """Align a chunk, store its senones, and write its cuts to ``job.result``."""
    results, guessed = job.aligner(job.cuts)
    statistics = AlignmentStatistics(np.zeros(job.num_pdfs, dtype=np.int64), guessed=guessed)
    writer = NumpyFilesWriter(job.storage)
    job.result.parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(job.result) as file:
        for cut, result in zip(job.cuts, results, strict=True):
            if isinstance(result, str):
                statistics.skipped.append((cut.id, result))
                continue
            file.write(json.dumps(attach_alignment(cut, result, writer).to_dict()) + "\n")
            statistics.pdf_counts += np.bincount(result.senones, minlength=job.num_pdfs)
            statistics.utterances += 1
            statistics.frames += len(result.senones)
            statistics.log_likelihood += result.log_likelihood * len(result.senones)
    return statistics


def store_split(
    executor: Executor, aligner: Aligner, cuts: Iterable[MonoCut], out: Path, split: str, num_pdfs: int,
    num_chunks: int | None = None,
) -> AlignmentStatistics:  # fmt: skip
    """Write cuts_SPLIT.jsonl.gz with alignments, the senones, skipped_SPLIT.tsv and guessed_SPLIT.tsv.

    ``num_chunks`` is an estimate for the progress bar.

    Raises:
        UserError: no cut of the split could be aligned.
    """
    out = out.resolve()  # the manifests contain the paths of the arrays
    work = out / "chunks" / split
    results = (work / f"{i:05d}.jsonl" for i in itertools.count())
    jobs = (
        StoreJob(chunk, aligner, out / "senones" / split / f"{i:05d}", work / f"{i:05d}.jsonl", num_pdfs)
        for i, chunk in enumerate(chunks(iter(cuts)))
    )
    total = AlignmentStatistics(np.zeros(num_pdfs, dtype=np.int64))
    with jsonl_writer(out / f"cuts_{split}.jsonl.gz") as append:
        for statistics in run_in_order(executor, store_chunk, jobs, f"alignment of {split}", "chunk", num_chunks):
            total += statistics
            for line in next(results).read_text(encoding="utf-8").splitlines():
                append(json.loads(line))
    write_skipped(out, split, total.skipped)
    with atomic_open(out / f"guessed_{split}.tsv") as file:
        for word in sorted(total.guessed):
            file.writelines(f"{word}\t{' '.join(phones)}\n" for phones in total.guessed[word])
    require_utterances(total.utterances, total.skipped, split, out)
    shutil.rmtree(out / "chunks")
    return total


def align_splits(
    executor: Executor, aligner: Aligner, features: Path, out: Path, num_pdfs: int, splits: Sequence[str] = ()
) -> dict[str, AlignmentStatistics]:
    """Align the cuts of some splits of a features folder (default: all splits)."""
    return {
        split: store_split(
            executor, aligner, load_cuts(features, split), out, split, num_pdfs, max_chunks(features, split)
        )
        for split in splits or splits_of(features)
    }


def write_summary(
    out: Path, description: Mapping[str, Any], statistics: Mapping[str, AlignmentStatistics]
) -> dict[str, Any]:
    """Write hmm.json and pdf_counts.npy, print a summary of each split; returns the figures for the completion mark."""
    if "train" in statistics:
        save_array(out / "pdf_counts.npy", statistics["train"].pdf_counts)
    silence_pdfs = description["silence_pdfs"]
    splits = {split: one.summary(silence_pdfs) for split, one in statistics.items()}
    write_json(out / "hmm.json", {"senones": tree_identity(out), **description, "splits": splits})
    for split, summary in splits.items():
        print(f"{split}: {_summary_line(summary, bool(silence_pdfs))}", flush=True)
    return {"num_pdfs": description["num_pdfs"], "splits": splits}


def _summary_line(summary: Mapping[str, Any], silence_known: bool) -> str:
    parts = [
        f"{summary['utterances']:,} utterances aligned, {summary['skipped']:,} skipped",
        f"{summary['frames']:,} frames" + f", {100 * summary['silence_share']:.1f} % silence" * silence_known,
    ]
    if summary["log_likelihood"]:  # imported alignments have none
        parts.append(f"log-likelihood per frame {summary['log_likelihood']:.2f}")
    if summary["guessed_words"]:
        parts.append(f"{summary['guessed_words']:,} words with guessed pronunciations")
    return "; ".join(parts)


def copy_models(source: Path, target: Path) -> None:
    """Copy the models in a folder of python -m asr_kd.hmm to another folder."""
    for name in (*MODELS, *(name for name in OPTIONAL_MODELS if (source / name).is_file())):
        copy_file(source / name, target / name)
