"""The work of the hmm stage: train on the role train, align every role, describe the result."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np

from asr_kd.hmm.align import Figures, ScoredAlignment, Source, load_cuts, roles_of, store_role
from asr_kd.hmm.cepstra import delta_map
from asr_kd.hmm.corpus import ChunkJob, chunks, prepare_chunk
from asr_kd.hmm.scores import GmmScorer
from asr_kd.hmm.topology import topology_text
from asr_kd.hmm.train import Trainer
from asr_kd.hmm.words import Words
from asr_kd.parallel import make_executor, run_all
from asr_kd.storage import UserError, atomic_open, save_array, write_json

CMVN = ("cmvn.json", "cmvn_speakers.npy", "cmvn_global.npy")


def train_and_align(
    features: Path, lang: Path, out: Path, *, leaves: int, gaussians: int, mono_gaussians: int,
    min_leaf_frames: float, silence_states: int, seed: int, jobs: int,
) -> dict[str, Any]:  # fmt: skip
    """Fill ``out``; returns the figures of hmm.json that the completion mark keeps."""
    if "train" not in roles_of(features):
        raise UserError(f"{features} has no cuts_train.jsonl.gz: run python -m asr_kd.features first")
    out = out.resolve()
    words = Words.load(lang)
    phones = list(range(1, len(words.phones)))
    topology = topology_text(phones, words.lang.silence_phones, silence_states)
    scratch = out / "training"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    for name in CMVN:
        copy_file(features / name, out / name)
    save_array(out / "transform.npy", delta_map())
    write_text(out / "topo", topology)
    with make_executor(jobs) as executor:
        folders = _prepare(executor, features, lang, scratch)
        trainer = Trainer(
            executor, folders, scratch, topology, words.lang.silence_phones, out / "transform.npy", seed
        )
        mono = trainer.monophones(mono_gaussians)
        tri, tree = trainer.triphones(mono, leaves, min_leaf_frames, gaussians)
        for source, name in ((mono.mdl, "mono.mdl"), (tri.mdl, "tri.mdl"), (tri.tree, "tree")):
            copy_file(source, out / name)
        shutil.rmtree(scratch)
        source = ScoredAlignment(out, lang.resolve(), GmmScorer(out))
        figures = align_roles(executor, source, features, out, tree.num_pdfs)
    description = {
        "num_pdfs": tree.num_pdfs,
        "silence_pdfs": tree.silence_pdfs,
        "tree_gain": round(tree.gain, 4),
        "questions": [sorted(words.phones[p] for p in question) for question in tree.questions],
        "training": trainer.history,
        "failed_in_training": trainer.failed,
    }
    return finish(out, description, figures)


def _prepare(executor: Executor, features: Path, lang: Path, scratch: Path) -> list[Path]:
    jobs = [
        ChunkJob(chunk, scratch / "data" / f"{i:05d}", features, lang)
        for i, chunk in enumerate(chunks(iter(load_cuts(features, "train"))))
    ]
    for _ in run_all(executor, prepare_chunk, jobs, "cepstra", "chunk"):
        pass
    return [job.folder for job in jobs]


def align_roles(
    executor: Executor, source: Source, features: Path, out: Path, num_pdfs: int, roles: Sequence[str] = ()
) -> dict[str, Figures]:
    """Align the roles (all of them by default) that ``features`` has cuts of."""
    return {
        role: store_role(executor, source, load_cuts(features, role), out, role, num_pdfs)
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


def copy_file(source: Path, target: Path) -> None:
    with open(source, "rb") as before, atomic_open(target, "wb") as after:
        shutil.copyfileobj(before, after)


def write_text(path: Path, text: str) -> None:
    with atomic_open(path) as file:
        file.write(text)
