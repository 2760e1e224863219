"""Work of the hmm stage: train on the train split, align every split, summarise the result."""

import shutil
from collections.abc import Iterator
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_all
from asr_kd.common.storage import atomic_open, copy_file, write_json
from asr_kd.corpora.copies import clean_id, source_id
from asr_kd.corpora.cuts import chunks, load_cuts, max_chunks, splits_of
from asr_kd.features.front_end import FrontEnd
from asr_kd.hmm.align import ForcedAligner
from asr_kd.hmm.cepstra import delta_transform, num_cepstra
from asr_kd.hmm.config import Config
from asr_kd.hmm.corpus import ChunkJob, prepare_chunk
from asr_kd.hmm.pronunciations import Pronunciations
from asr_kd.hmm.scores import GmmScorer
from asr_kd.hmm.store import align_splits, write_summary
from asr_kd.hmm.topology import topology_text
from asr_kd.hmm.train import Trainer

CMVN = ("cmvn.json", "cmvn_speakers.npy")


def train_and_align(config: Config) -> dict[str, Any]:
    """Fill ``config.out``; returns the figures for the completion mark.

    Raises:
        UserError: there is no train split, or no utterance of a split could be aligned.
    """
    if "train" not in splits_of(config.features):
        raise UserError(f"{config.features} has no cuts_train.jsonl.gz: run python -m asr_kd.features first")
    out, dimension = config.out.resolve(), num_cepstra(FrontEnd.load(config.features))
    pronunciations = Pronunciations.load(config.lang)
    lang = pronunciations.lang
    topology = topology_text(lang.real_phones, lang.silence_phones, config.silence_states)
    with atomic_open(out / "topo") as file:
        file.write(topology)
    for name in CMVN:
        copy_file(config.features / name, out / name)
    write_json(out / "frontend.json", {"transform": delta_transform(dimension).tolist()})
    scratch = out / "training"
    shutil.rmtree(scratch, ignore_errors=True)  # left by an interrupted run
    with config.executor() as executor:
        folders = _prepare(executor, config, scratch)
        frontend = out / "frontend.json"
        trainer = Trainer(executor, folders, scratch, topology, lang.silence_phones, frontend, config.seed)
        gaussians = config.gaussians or 10 * config.leaves
        mono, tri, tree = trainer.train(config.mono_gaussians, config.leaves, config.min_leaf_frames, gaussians)
        for source, name in ((mono.mdl, "mono.mdl"), (tri.mdl, "tri.mdl"), (tri.tree, "tree")):
            copy_file(source, out / name)
        shutil.rmtree(scratch)
        aligner = ForcedAligner(out, config.lang.resolve(), partial(GmmScorer, out))
        statistics = align_splits(executor, aligner, config.features, out, tree.num_pdfs)
    description = {
        "num_pdfs": tree.num_pdfs,
        "silence_pdfs": tree.silence_pdfs,
        "tree_gain": round(tree.gain, 4),
        "questions": [sorted(pronunciations.phones[p] for p in question) for question in tree.questions],
        "training": trainer.history,
        "failed_in_training": trainer.failed,
    }
    return write_summary(out, description, statistics)


def is_perturbed(cut: MonoCut) -> bool:
    """Return whether the audio of a cut is speed-perturbed."""
    return source_id(cut) != clean_id(cut)


def _prepare(executor: Executor, config: Config, scratch: Path) -> list[Path]:
    """Prepare the train split in chunks (cepstra, transcripts, pronunciations); returns their folders."""
    cuts = (cut for cut in load_cuts(config.features, "train") if config.perturbed or not is_perturbed(cut))
    folders: list[Path] = []

    def jobs() -> Iterator[ChunkJob]:
        for i, chunk in enumerate(chunks(cuts)):
            folders.append(scratch / "data" / f"{i:05d}")
            yield ChunkJob(chunk, folders[-1], config.features, config.lang)

    for _ in run_all(executor, prepare_chunk, jobs(), "cepstra", "chunk", max_chunks(config.features, "train")):
        pass
    return folders
