"""The work of the hmm stage: train on the split train, align every split, describe the result."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_all
from asr_kd.common.storage import atomic_open, copy_file, write_json
from asr_kd.corpora.cuts import chunks, load_cuts, most_chunks, splits_of
from asr_kd.hmm.align import ScoredAlignment
from asr_kd.hmm.cepstra import delta_map
from asr_kd.hmm.config import Config
from asr_kd.hmm.corpus import ChunkJob, prepare_chunk
from asr_kd.hmm.scores import GmmScorer
from asr_kd.hmm.store import align_splits, finish
from asr_kd.hmm.topology import topology_text
from asr_kd.hmm.train import Trainer
from asr_kd.hmm.words import Words

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

CMVN = ("cmvn.json", "cmvn_speakers.npy", "cmvn_global.npy")


def train_and_align(config: Config) -> dict[str, Any]:
    """Fill ``config.out``; returns the figures that the completion mark keeps.

    Raises:
        UserError: there is no train split, or nothing of a split could be aligned.
    """
    if "train" not in splits_of(config.features):
        raise UserError(f"{config.features} has no cuts_train.jsonl.gz: run python -m asr_kd.features first")
    out = config.out.resolve()
    words = Words.load(config.lang)
    silence_phones = words.lang.silence_phones
    topology = topology_text(words.lang.real_phones, silence_phones, config.silence_states)
    with atomic_open(out / "topo") as file:
        file.write(topology)
    for name in CMVN:
        copy_file(config.features / name, out / name)
    write_json(out / "frontend.json", {"cmn": config.cmn, "transform": delta_map().tolist()})
    scratch = out / "training"
    shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
    with config.executor() as executor:
        folders = _prepare(executor, config, scratch)
        trainer = Trainer(executor, folders, scratch, topology, silence_phones, out / "frontend.json", config.seed)
        mono = trainer.monophones(config.mono_gaussians)
        gaussians = config.gaussians or 10 * config.leaves
        tri, tree = trainer.triphones(mono, config.leaves, config.min_leaf_frames, gaussians)
        for made, name in ((mono.mdl, "mono.mdl"), (tri.mdl, "tri.mdl"), (tri.tree, "tree")):
            copy_file(made, out / name)
        shutil.rmtree(scratch)
        source = ScoredAlignment(out, config.lang.resolve(), GmmScorer(out))
        figures = align_splits(executor, source, config.features, out, tree.num_pdfs)
    description = {
        "num_pdfs": tree.num_pdfs,
        "silence_pdfs": tree.silence_pdfs,
        "tree_gain": round(tree.gain, 4),
        "questions": [sorted(words.phones[p] for p in question) for question in tree.questions],
        "training": trainer.history,
        "failed_in_training": trainer.failed,
    }
    return finish(out, description, figures)


def is_perturbed(cut: MonoCut) -> bool:
    """Whether a cut's audio is a copy at another speed."""
    return cut.has_recording and bool(cut.recording.transforms)


def _prepare(executor: Executor, config: Config, scratch: Path) -> list[Path]:
    """Cepstra and transcripts of the train split, in chunks; returns their folders."""
    cuts = (cut for cut in load_cuts(config.features, "train") if config.perturbed or not is_perturbed(cut))
    folders: list[Path] = []

    def jobs() -> Iterator[ChunkJob]:
        for i, chunk in enumerate(chunks(cuts)):
            folders.append(scratch / "data" / f"{i:05d}")
            yield ChunkJob(chunk, folders[-1], config.features, config.lang, config.cmn)

    for _ in run_all(executor, prepare_chunk, jobs(), "cepstra", "chunk", most_chunks(config.features, "train")):
        pass
    return folders
