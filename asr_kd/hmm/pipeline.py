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
from asr_kd.common.storage import atomic_open, copy_file, read_json, write_json
from asr_kd.corpora.copies import clean_id, source_id
from asr_kd.corpora.cuts import chunks, load_cuts, max_chunks, splits_of
from asr_kd.features.front_end import FrontEnd
from asr_kd.hmm.align import ForcedAligner
from asr_kd.hmm.cepstra import delta_transform, num_cepstra
from asr_kd.hmm.config import Config
from asr_kd.hmm.corpus import ChunkJob, prepare_chunk
from asr_kd.hmm.pronunciations import Pronunciations
from asr_kd.hmm.schedule import Sizes
from asr_kd.hmm.scores import INDEPENDENT, GmmScorer, split_transforms, write_transforms
from asr_kd.hmm.speakers import transforms_of
from asr_kd.hmm.store import AlignmentStatistics, align_splits, write_summary
from asr_kd.hmm.topology import topology_text
from asr_kd.hmm.train import Models, Trainer
from asr_kd.hmm.tree import PhoneSets

CMVN = ("cmvn.json", "cmvn_speakers.npy")


def train_and_align(config: Config) -> dict[str, Any]:
    """Fill ``config.out``; returns the figures for the completion mark.

    Raises:
        UserError: there is no train split, or no utterance of a split could be aligned.
    """
    if "train" not in splits_of(config.features):
        raise UserError(f"{config.features} has no cuts_train.jsonl.gz: run python -m asr_kd.features first")
    out = config.out.resolve()
    trained = out / "trained.json"  # with it, a stage that was killed while it aligned does not train again
    with config.executor() as executor:
        if not trained.is_file():
            write_json(trained, _train(executor, config, out))
        description = read_json(trained)
        statistics = align(executor, config, out, description)
    trained.unlink()
    return write_summary(out, description, statistics)


def _train(executor: Executor, config: Config, out: Path) -> dict[str, Any]:
    """Write the models and what they need into ``out``; returns what hmm.json says of them."""
    pronunciations = Pronunciations.load(config.lang)
    lang = pronunciations.lang
    topology = topology_text(lang.real_phones, lang.silence_phones, config.silence_states)
    with atomic_open(out / "topo") as file:
        file.write(topology)
    for name in CMVN:
        copy_file(config.features / name, out / name)
    frontend = out / "frontend.json"
    write_json(frontend, {"transform": delta_transform(num_cepstra(FrontEnd.load(config.features))).tolist()})
    scratch = out / "training"
    shutil.rmtree(scratch, ignore_errors=True)  # left by an interrupted run
    folders, lengths = _prepare(executor, config, scratch)
    phones = PhoneSets(lang.silence_phones, lang.phones_alike, lang.positions)
    trainer = Trainer(executor, folders, scratch, topology, phones, frontend, config.seed)
    models = trainer.train(_sizes(config, lengths))
    tree = models.tree
    _copy_models(models, out)
    shutil.rmtree(scratch)
    return {
        "num_pdfs": tree.num_pdfs,
        "silence_pdfs": tree.silence_pdfs,
        "tree_gain": round(tree.gain, 4),
        "questions": [sorted(pronunciations.phones[p] for p in question) for question in tree.questions],
        "training": trainer.history,
        "failed_in_training": trainer.failed,
    }


def is_perturbed(cut: MonoCut) -> bool:
    """Return whether the audio of a cut is speed-perturbed."""
    return source_id(cut) != clean_id(cut)


def _sizes(config: Config, lengths: list[int]) -> Sizes:
    """What the trainer makes, given the frames of the training utterances."""
    few = 0 < config.mono_utterances < len(lengths)
    return Sizes(
        config.mono_gaussians, sorted(lengths)[config.mono_utterances - 1] if few else 0, config.leaves,
        config.min_leaf_frames, config.gaussians, config.transform == "lda", config.sat,
    )  # fmt: skip


def _copy_models(models: Models, out: Path) -> None:
    """Copy the trained models from the trainer's folder."""
    copy_file(models.mono.mdl, out / "mono.mdl")
    copy_file(models.tri.mdl, out / "tri.mdl")
    copy_file(models.tri.tree, out / "tree")
    if models.tri.frontend != out / "frontend.json":
        copy_file(models.tri.frontend, out / "frontend.json")
    if models.independent:
        copy_file(models.independent.mdl, out / INDEPENDENT)


def align(executor: Executor, config: Config, out: Path, model: dict[str, Any]) -> dict[str, AlignmentStatistics]:
    """Align every split; with SAT, each with the transforms of its speakers, which are kept as fmllr_SPLIT.ark.

    Args:
        out: folder with the models, which is filled.
        model: what hmm.json says of them.
    """
    lang = config.lang.resolve()
    if not config.sat:
        return align_splits(
            executor, ForcedAligner(out, lang, partial(GmmScorer, out)), config.features, out, model["num_pdfs"]
        )
    statistics: dict[str, AlignmentStatistics] = {}
    for split in splits_of(config.features):
        archive = split_transforms(out, split)
        write_transforms(
            archive,
            transforms_of(
                executor,
                partial(load_cuts, config.features, split),
                out,
                lang,
                model["silence_pdfs"],
                f"fMLLR of {split}",
            ),
        )
        aligner = ForcedAligner(out, lang, partial(GmmScorer, out, archive))
        statistics |= align_splits(executor, aligner, config.features, out, model["num_pdfs"], [split])
    return statistics


def _prepare(executor: Executor, config: Config, scratch: Path) -> tuple[list[Path], list[int]]:
    """Prepare the train split in chunks (cepstra, transcripts, pronunciations).

    Returns:
        the folders of the chunks, and the number of frames of each utterance.
    """
    cuts = (cut for cut in load_cuts(config.features, "train") if config.perturbed or not is_perturbed(cut))
    folders: list[Path] = []

    def jobs() -> Iterator[ChunkJob]:
        for i, chunk in enumerate(chunks(cuts)):
            folders.append(scratch / "data" / f"{i:05d}")
            yield ChunkJob(chunk, folders[-1], config.features, config.lang)

    lengths: list[int] = []
    for _, frames in run_all(executor, prepare_chunk, jobs(), "cepstra", "chunk", max_chunks(config.features, "train")):
        lengths += frames
    return folders, lengths
