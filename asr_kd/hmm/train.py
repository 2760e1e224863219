"""GMM training: flat-start monophones, a tree, triphones.  Chunks of utterances go to an Executor's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import kaldi_hmm_gmm
import numpy as np

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_in_order
from asr_kd.common.storage import read_json
from asr_kd.hmm import passes
from asr_kd.hmm.gmm import Accumulators, Gmms, grow, single_gaussians, update
from asr_kd.hmm.kaldi_io import make_tree, read_model, tree_bytes, write_model, write_tree
from asr_kd.hmm.passes import Model, PassJob, Statistics
from asr_kd.hmm.tree import ContextStats, Tree, build_tree, monophone_tree

Job = TypeVar("Job")
Result = TypeVar("Result")

RELATIVE_FLOOR = 0.01  # least variance of a Gaussian, relative to the variance of all frames


@dataclass(frozen=True)
class Schedule:
    """EM passes, the passes that align anew, and the Gaussians to reach at ``grow_until``."""

    passes: int
    realign: frozenset[int]
    gaussians: int
    grow_until: int


def monophone_schedule(gaussians: int) -> Schedule:
    return Schedule(20, frozenset([*range(1, 9), 10, 12, 15, 18]), gaussians, 15)


def triphone_schedule(gaussians: int) -> Schedule:
    return Schedule(20, frozenset([5, 10, 15, 18]), gaussians, 15)


class Trainer:
    """Trains on prepared chunks.

    Args:
        executor: where passes run.
        chunks: folders that ``prepare_chunk`` filled.
        scratch: folder for the models in between.
        topology: text of the topology.
        silence_phones: ids; the first is SIL.
        frontend: JSON file with the (D, 117) feature map, "transform".
        seed: of the growth of mixtures.
    """

    def __init__(
        self, executor: Executor, chunks: Sequence[Path], scratch: Path, topology: str,
        silence_phones: Sequence[int], frontend: Path, seed: int,
    ) -> None:  # fmt: skip
        self.executor, self.chunks, self.scratch = executor, chunks, scratch
        self.topology = kaldi_hmm_gmm.HmmTopology()
        self.topology.read(topology)
        self.silence_phones, self.frontend, self.seed = list(silence_phones), frontend, seed
        self.failed: list[str] = []
        self.history: list[dict[str, float]] = []

    @property
    def pdf_classes(self) -> dict[int, int]:
        return {phone: self.topology.num_pdf_classes(phone) for phone in self.topology.phones}

    def map(self, function: Callable[[Job], Result], jobs: Sequence[Job], description: str) -> Iterator[Result]:
        return run_in_order(self.executor, function, jobs, description, "chunk")

    def run_pass(self, model: Model, how: str, description: str) -> Statistics:
        total: Statistics | None = None
        jobs = [PassJob(chunk, model, how) for chunk in self.chunks]
        for one in self.map(passes.run_pass, jobs, description):
            if total is None:
                total = one
            else:
                total += one
        if total is None or not total.gmm.frames:
            raise UserError("no training utterance could be aligned: check that the transcripts belong to the audio")
        if how != "keep":
            self.failed = total.failed
        return total

    def em(self, model: Model, schedule: Schedule, name: str, first: str) -> Model:
        """Alternate alignment and updates; ``first`` is how the first pass gets its alignment."""
        rng = np.random.default_rng(self.seed)
        transitions, gmms = read_model(model.mdl)
        floor = None
        begin = int(gmms.starts[-1])
        step = (schedule.gaussians - begin) / max(schedule.grow_until, 1)
        for number in range(schedule.passes):
            how = first if number == 0 else "viterbi" if number in schedule.realign else "keep"
            stats = self.run_pass(model, how, f"{name} pass {number + 1}/{schedule.passes}")
            floor = _variance_floor(stats.gmm) if floor is None else floor
            transitions.mle_update(stats.transitions.astype(np.float64), kaldi_hmm_gmm.MleTransitionUpdateConfig())
            gmms = update(gmms, stats.gmm, floor)
            if number < schedule.grow_until:
                frames = _pdf_frames(stats, transitions)
                gmms = grow(gmms, frames, int(begin + step * (number + 1)), rng)
            model = replace(model, mdl=self.scratch / f"{name}-{number + 1}.mdl")
            write_model(model.mdl, transitions, gmms)
            self.history.append(
                {
                    "pass": number + 1,
                    "log_likelihood": stats.gmm.log_likelihood / stats.gmm.frames,
                    "gaussians": int(gmms.starts[-1]),
                    "failed": len(self.failed),
                }
            )
            print(name, how, self.history[-1], flush=True)
        return model

    def new_model(self, name: str, tree: bytes, gmms: Gmms | None) -> Model:
        """A model with the topology's transition probabilities."""
        path = self.scratch / f"{name}.tree"
        write_tree(path, tree)
        transitions = kaldi_hmm_gmm.TransitionModel(make_tree(tree), self.topology)
        model = Model(path, self.scratch / f"{name}-0.mdl", self.frontend)
        if gmms is None:
            dim = len(read_json(self.frontend)["transform"])
            ones = np.ones((transitions.num_pdfs, dim))
            gmms = Gmms(np.arange(transitions.num_pdfs + 1), np.ones(len(ones)), ones * 0, ones)
        write_model(model.mdl, transitions, gmms)
        return model

    def monophones(self, gaussians: int) -> Model:
        phones = list(self.topology.phones)
        tree = tree_bytes(monophone_tree(phones, self.pdf_classes))
        model = self.new_model("mono", tree, None)
        return self.em(model, monophone_schedule(gaussians), "mono", "equal")

    def triphones(self, model: Model, leaves: int, min_frames: float, gaussians: int) -> tuple[Model, Tree]:
        """Grow a tree over ``model``'s alignment and train its triphones."""
        jobs = [PassJob(chunk, model, "keep") for chunk in self.chunks]
        stats = ContextStats.merge(self.map(passes.context_stats, jobs, "tree statistics"))
        phones = list(self.topology.phones)
        grown = build_tree(stats, phones, self.silence_phones, self.pdf_classes, leaves, min_frames)
        tree = make_tree(tree_bytes(grown.root))
        pdfs = np.array([tree.compute(c[:3], c[3])[1] for c in stats.contexts.tolist()])
        sums = np.zeros((grown.num_pdfs, stats.stats.shape[1]))
        np.add.at(sums, pdfs, stats.stats)
        dim = (sums.shape[1] - 1) // 2
        total = sums.sum(0)
        floor = RELATIVE_FLOOR * (total[1 + dim :] / total[0] - (total[1 : 1 + dim] / total[0]) ** 2)
        gmms = single_gaussians(sums[:, 0], sums[:, 1 : 1 + dim], sums[:, 1 + dim :], floor)
        new = self.new_model("tri", tree_bytes(grown.root), gmms)
        converted = [passes.ConvertJob(chunk, model, new) for chunk in self.chunks]
        for _ in self.map(passes.convert, converted, "convert"):
            pass
        return self.em(new, triphone_schedule(gaussians), "tri", "keep"), grown


def _variance_floor(stats: Accumulators) -> np.ndarray:
    mean = stats.sums.sum(0) / stats.occupation.sum()
    return RELATIVE_FLOOR * (stats.squares.sum(0) / stats.occupation.sum() - mean**2)


def _pdf_frames(stats: Statistics, transitions: kaldi_hmm_gmm.TransitionModel) -> np.ndarray:
    pdf_of = np.array(transitions.id2pdf_id)
    return np.bincount(pdf_of[1:], stats.transitions[1:], minlength=transitions.num_pdfs)
