"""Viterbi training of the GMMs: flat-start monophones, decision tree, triphones; then LDA and MLLT, fMLLR by speaker.

Each pass over the chunks of utterances runs on the workers of an Executor.
"""

import functools
import operator
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import kaldi_hmm_gmm
import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_in_order
from asr_kd.common.progress import progress
from asr_kd.common.storage import read_json, save_array, write_json
from asr_kd.hmm import passes
from asr_kd.hmm.adaptation import (
    StatisticsJob,
    chunk_fmllr_statistics,
    chunk_mllt_statistics,
    lda_statistics,
    speaker_transforms,
    unadapted_statistics,
)
from asr_kd.hmm.corpus import TRANSFORMS, Chunk
from asr_kd.hmm.gmm import Accumulators, Gmms, mix_up, mle_update, moved, single_gaussians
from asr_kd.hmm.kaldi_io import make_tree, read_model, tree_bytes, write_model, write_tree
from asr_kd.hmm.passes import AlignmentMode, ConvertJob, ModelFiles, PassJob, PassStatistics
from asr_kd.hmm.schedule import GAUSSIANS_PER_LEAF, LDA_DIM, MONOPHONES, TRANSFORM_PASSES, TRIPHONES, Schedule, Sizes
from asr_kd.hmm.transforms import lda, maximise
from asr_kd.hmm.tree import ContextStats, PhoneSets, Tree, build_tree, monophone_tree, variance_floor

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Models:
    """What ``Trainer.train`` returns: monophones, triphones, their tree, and with SAT triphones for any speaker."""

    mono: ModelFiles
    tri: ModelFiles
    tree: Tree
    independent: ModelFiles | None


class Trainer:
    """Trains GMM-HMMs on prepared chunks.

    Args:
        executor: runs the jobs of each pass.
        chunks: folders filled by ``prepare_chunk``.
        scratch: folder for intermediate models.
        topology: text of the topology.
        phone_sets: the phones by kind.
        frontend: JSON file with the feature transform, (E, 9 D).
        seed: seed of the perturbation of split Gaussians.

    Attributes:
        failed: utterances that the last alignment could not align.
        history: figures of each pass.
    """

    def __init__(
        self, executor: Executor, chunks: Sequence[Path], scratch: Path, topology: str,
        phone_sets: PhoneSets, frontend: Path, seed: int,
    ) -> None:  # fmt: skip
        self.executor, self.chunks, self.scratch = executor, chunks, scratch
        self.topology = kaldi_hmm_gmm.HmmTopology()
        self.topology.read(topology)
        self.phones = list(self.topology.phones)
        self.pdf_classes = {phone: self.topology.num_pdf_classes(phone) for phone in self.phones}
        self.phone_sets, self.frontend, self.seed = phone_sets, frontend, seed
        self.failed: list[str] = []
        self.history: list[dict[str, float]] = []
        self._frontends = 0

    def train(self, sizes: Sizes) -> Models:
        """Train monophones, and triphones; for LDA and for SAT, more triphones on the alignment of those before.

        Raises:
            UserError: no utterance could be aligned.
        """
        # Besides the passes: tree statistics and conversion; LDA, MLLT; fMLLR, the model for any speaker.
        further = TRIPHONES.passes + len(TRANSFORM_PASSES) + 3
        runs = MONOPHONES.passes + TRIPHONES.passes + 2 + bool(sizes.mono_frames)
        runs += sizes.lda * further + sizes.sat * (further + 1)
        with progress(None, "GMM training", runs * len(self.chunks), "chunk") as self._bar:
            mono = self._new_model(
                "mono", tree_bytes(monophone_tree(self.phones, self.pdf_classes, self.phone_sets.alike))
            )
            mono = self._viterbi_training(
                mono, MONOPHONES, sizes.mono_gaussians, "mono", "equal", max_frames=sizes.mono_frames
            )
            if sizes.mono_frames:
                self._run_pass(mono, "viterbi", "alignment with the monophones")
            tri, tree = self._triphones(mono, sizes, "tri")
            if sizes.lda:
                tri, tree = self._triphones(self._lda(tri), sizes, "lda-tri", self._mllt)
            if not sizes.sat:
                return Models(mono, tri, tree, None)
            tri, tree = self._triphones(self._fmllr(tri), sizes, "sat-tri", self._fmllr)
            return Models(mono, tri, tree, self._speaker_independent(tri))

    def _triphones(
        self, model: ModelFiles, sizes: Sizes, name: str, refine: Callable[[ModelFiles], ModelFiles] | None = None
    ) -> tuple[ModelFiles, Tree]:
        """Train triphones on the stored alignment, which is that of ``model``, and on its features."""
        tri, tree = self._tie_states(model, name, sizes.leaves, sizes.min_leaf_frames)
        gaussians = sizes.gaussians or GAUSSIANS_PER_LEAF * tree.num_pdfs
        return self._viterbi_training(tri, TRIPHONES, gaussians, name, "keep", refine), tree

    def _map(self, function: Callable[[Job], Result], jobs: Sequence[Job], description: str) -> Iterator[Result]:
        """Yield the result of each chunk and advance the progress bar."""
        self._bar.set_description(description, refresh=False)
        for result in run_in_order(self.executor, function, jobs, description, shown=False):
            self._bar.update()
            yield result

    def _run_pass(
        self, model: ModelFiles, mode: AlignmentMode, description: str, max_frames: int = 0
    ) -> PassStatistics:
        jobs = [PassJob(chunk, model, mode, max_frames) for chunk in self.chunks]
        total = functools.reduce(operator.iadd, self._map(passes.run_pass, jobs, description)) if jobs else None
        if total is None or not total.gmm.frames:
            raise UserError("no training utterance could be aligned: check that the transcripts belong to the audio")
        if mode != "keep":
            self.failed = total.failed
        return total

    def _viterbi_training(
        self, model: ModelFiles, schedule: Schedule, gaussians: int, name: str, first: AlignmentMode,
        refine: Callable[[ModelFiles], ModelFiles] | None = None, max_frames: int = 0,
    ) -> ModelFiles:  # fmt: skip
        """Alternate alignment and maximum-likelihood updates up to ``gaussians`` Gaussians in total.

        ``first`` is the alignment mode of the first pass; ``refine`` estimates transforms before ``TRANSFORM_PASSES``.
        """
        rng = np.random.default_rng(self.seed)
        transitions, gmms = read_model(model.mdl)
        floor = None
        initial = int(gmms.starts[-1])
        step = (gaussians - initial) / max(schedule.mix_up_passes, 1)
        for number in range(schedule.passes):
            mode: AlignmentMode = first if number == 0 else "viterbi" if number in schedule.realign else "keep"
            description = f"{name}phones, pass {number + 1} of {schedule.passes}"
            if refine and number in TRANSFORM_PASSES:
                model = refine(model)
                gmms = read_model(model.mdl)[1]
            stats = self._run_pass(model, mode, description, max_frames)
            floor = _variance_floor(stats.gmm) if floor is None else floor
            transitions.mle_update(stats.transitions.astype(np.float64), kaldi_hmm_gmm.MleTransitionUpdateConfig())
            gmms = mle_update(gmms, stats.gmm, floor)
            if number < schedule.mix_up_passes:
                gmms = mix_up(gmms, _pdf_frames(stats, transitions), int(initial + step * (number + 1)), rng)
            model = replace(model, mdl=self.scratch / f"{name}-{number + 1}.mdl")
            write_model(model.mdl, transitions, gmms)
            self._report(description, number + 1, stats.gmm.log_likelihood / stats.gmm.frames, int(gmms.starts[-1]))
        return model

    def _report(self, description: str, number: int, log_likelihood: float, gaussians: int) -> None:
        """Record the figures of a pass and print them."""
        failed = len(self.failed)
        self.history.append(
            {"pass": number, "log_likelihood": log_likelihood, "gaussians": gaussians, "failed": failed}
        )
        with self._bar.external_write_mode():
            print(
                f"{description}: {gaussians:,} Gaussians, log-likelihood per frame {log_likelihood:.2f}, "
                f"{failed:,} utterances not aligned",
                flush=True,
            )

    def _statistics(
        self, function: Callable[[StatisticsJob], Result], model: ModelFiles, description: str
    ) -> Iterator[Result]:
        jobs = [StatisticsJob(chunk, model, tuple(self.phone_sets.silence)) for chunk in self.chunks]
        return self._map(function, jobs, description)

    def _lda(self, model: ModelFiles) -> ModelFiles:
        """The same model with the features of LDA, for trees alone."""
        stats = functools.reduce(operator.iadd, self._statistics(lda_statistics, model, "LDA"))
        return replace(model, frontend=self._write_frontend(lda(stats, min(LDA_DIM, stats.squares.shape[0]))))

    def _mllt(self, model: ModelFiles) -> ModelFiles:
        """The same model with features, and means, that fit its diagonal covariances better."""
        stats = functools.reduce(operator.iadd, self._statistics(chunk_mllt_statistics, model, "MLLT"))
        transform = maximise([stats], np.eye(stats.linear.shape[1]))[0]
        transitions, gmms = read_model(model.mdl)
        frontend = self._write_frontend(transform @ np.array(read_json(model.frontend)["transform"]))
        refined = replace(model, mdl=model.mdl.with_suffix(".mllt.mdl"), frontend=frontend)
        write_model(refined.mdl, transitions, replace(gmms, means=gmms.means @ transform.T))
        return refined

    def _fmllr(self, model: ModelFiles) -> ModelFiles:
        """The same model with features transformed by speaker."""
        speakers = [Chunk.load(chunk).voices for chunk in self.chunks]
        parts = self._statistics(chunk_fmllr_statistics, model, "fMLLR")
        transforms = speaker_transforms(parts, speakers, read_model(model.mdl)[1].dim)
        for chunk, voices in zip(self.chunks, speakers, strict=True):
            save_array(chunk / TRANSFORMS, np.stack([transforms[voice] for voice in voices]))
        return replace(model, adapted=True)

    def _speaker_independent(self, model: ModelFiles) -> ModelFiles:
        """The Gaussians of adapted triphones, for features that are not."""
        parts = self._statistics(unadapted_statistics, model, "Gaussians for any speaker")
        stats = functools.reduce(operator.iadd, parts)
        transitions, gmms = read_model(model.mdl)
        independent = replace(model, mdl=self.scratch / "si.mdl", adapted=False)
        write_model(independent.mdl, transitions, moved(gmms, stats, _variance_floor(stats)))
        return independent

    def _write_frontend(self, transform: np.ndarray) -> Path:
        """A new file, since workers keep what they have read."""
        self._frontends += 1
        path = self.scratch / f"frontend-{self._frontends}.json"
        write_json(path, {"transform": transform.tolist()})
        return path

    def _new_model(
        self, name: str, tree: bytes, gmms: Gmms | None = None, features_of: ModelFiles | None = None
    ) -> ModelFiles:
        """Write a model with initial transition probabilities, and with standard normal densities if without GMMs."""
        path = self.scratch / f"{name}.tree"
        write_tree(path, tree)
        transitions = kaldi_hmm_gmm.TransitionModel(make_tree(tree), self.topology)
        model = replace(
            features_of or ModelFiles(path, path, self.frontend), tree=path, mdl=self.scratch / f"{name}-0.mdl"
        )
        if gmms is None:
            dim = len(read_json(self.frontend)["transform"])
            ones = np.ones((transitions.num_pdfs, dim))
            gmms = Gmms(np.arange(transitions.num_pdfs + 1), np.ones(len(ones)), ones * 0, ones)
        write_model(model.mdl, transitions, gmms)
        return model

    def _tie_states(self, old: ModelFiles, name: str, leaves: int, min_leaf_frames: float) -> tuple[ModelFiles, Tree]:
        """Build a tree on the stored alignment, which is that of ``old``.

        Returns:
            triphones with one Gaussian per leaf, to which the stored alignments are converted; and their tree.
        """
        jobs = [PassJob(chunk, old, "keep") for chunk in self.chunks]
        stats = ContextStats.merge(self._map(passes.tree_statistics, jobs, "tree statistics"))
        tree = build_tree(stats, self.phone_sets, self.pdf_classes, leaves, min_leaf_frames)
        content = tree_bytes(tree.root)
        context_dependency = make_tree(content)
        pdfs = np.array([context_dependency.compute(c[:3], c[3])[1] for c in stats.contexts.tolist()])
        sums = np.zeros((tree.num_pdfs, stats.stats.shape[1]))
        np.add.at(sums, pdfs, stats.stats)
        dim = (sums.shape[1] - 1) // 2
        floor = variance_floor(sums.sum(0))
        gmms = single_gaussians(sums[:, 0], sums[:, 1 : 1 + dim], sums[:, 1 + dim :], floor)
        tri = self._new_model(name, content, gmms, old)
        conversions = [ConvertJob(chunk, old, tri) for chunk in self.chunks]
        for _ in self._map(passes.convert_alignment, conversions, "conversion of the alignments"):
            pass
        return tri, tree


def _variance_floor(stats: Accumulators) -> np.ndarray:
    return variance_floor(np.concatenate([[stats.occupation.sum()], stats.sums.sum(0), stats.squares.sum(0)]))


def _pdf_frames(stats: PassStatistics, transitions: kaldi_hmm_gmm.TransitionModel) -> np.ndarray:
    """Occupation count of each pdf, (C,)."""
    pdf_of = np.array(transitions.id2pdf_id)
    return np.bincount(pdf_of[1:], stats.transitions[1:], minlength=transitions.num_pdfs)
