"""Criteria of whole utterances: what is better about a network's posterior over the paths of lattices.

The score of a path is that of its search: graph + κ · Σ (log posterior − log prior), with the acoustic scale κ of the
decoding.

- smbr: the expected share of frames whose senone is that of the alignment (state-level minimum Bayes risk; Kaiser,
  Horvat, Kačič 2000; Veselý et al. 2013, "Sequence-discriminative training of deep neural networks").
- mmi: the log posterior of the alignment per frame, but for the constant score of its path in the graph.  Frames where
  the lattice does not have the senone of the alignment have no gradient (frame rejection, Veselý et al. 2013).
- kl: minus the divergence per frame of the path posterior from the teachers', whose scores the lattices have from their
  decoding: Σ teachers' P(path) · log (teachers' P(path) / P(path)) (Wong and Gales 2016, "Sequence student-teacher
  training of deep neural networks").  Since the score of a path is a sum over its arcs, that needs only the teachers'
  occupancies of the arcs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from asr_kd.lattices.batch import LatticeBatch
from asr_kd.lattices.paths import expected_sum, log_sum, occupancies
from asr_kd.losses.frames import UNLABELLED
from asr_kd.models.scorer import NOT_SILENCE

Criterion = Literal["smbr", "mmi", "kl"]


@dataclasses.dataclass(frozen=True)
class SequenceCriterion:
    """What sequence training maximises.

    Args:
        name: smbr, mmi or kl.
        scale: acoustic scale κ.
        log_prior: (C,) of the senones.
        silence_pdfs: senones of silence, which are one class: they share their score, as in the search, and one in
            place of another is no error.
    """

    name: Criterion
    scale: float
    log_prior: Tensor
    silence_pdfs: Sequence[int] = ()

    def __call__(self, logits: Tensor, labels: Tensor, quiet: Tensor, lattices: LatticeBatch) -> tuple[Tensor, Tensor]:
        """Return the loss and the criterion, both means over the frames.

        Args:
            logits: (N, C) of the frames of all utterances, one after the other.
            labels: (N,) senones of the alignment; ``UNLABELLED`` where there is none.
            quiet: (N,) bool, frames in which the search takes silence for certain.
            lattices: of these utterances.

        Returns:
            The loss is minus the criterion over κ, so that its gradient is of the size of the cross-entropy's.
        """
        right = self._right(labels, lattices)
        pdf, row = lattices.pdf, lattices.row
        if self.name == "mmi":  # those of rejected frames keep their value and lose their gradient
            known = torch.zeros_like(quiet).index_fill_(0, row[right], True)
            logits = torch.where(known[:, None], logits, logits.detach())
        frame = self.frame_scores(logits, row, pdf, quiet).masked_fill(lattices.final, 0.0)
        scores = lattices.graph.double() + self.scale * frame.double()  # sums over thousands of frames
        if self.name == "smbr":
            total = expected_sum(scores, right.to(scores.dtype), lattices).sum()
        elif self.name == "mmi":
            rows = torch.arange(len(labels), device=labels.device)[labels != UNLABELLED]
            numerator = self.frame_scores(logits, rows, labels[rows], quiet)
            total = self.scale * numerator.sum() - log_sum(scores, lattices).sum()
        else:
            taught = lattices.graph.double() + self.scale * lattices.acoustic.double()
            with torch.no_grad():
                posteriors, teachers = occupancies(taught, lattices), log_sum(taught, lattices)
            total = (posteriors * (scores - taught)).sum() - (log_sum(scores, lattices) - teachers).sum()
        criterion = total / len(logits)
        return -criterion / self.scale, criterion.detach()

    def _right(self, labels: Tensor, lattices: LatticeBatch) -> Tensor:
        """Whether the senone of each arc is that of the alignment, (A,) bool."""
        silence = self._silence(labels.device)
        label = labels[lattices.row]
        both = silence[lattices.pdf] & silence[label.clamp(min=0)] & (label != UNLABELLED)
        return ((lattices.pdf == label) | both) & ~lattices.final

    def _silence(self, device: torch.device) -> Tensor:
        silence = torch.zeros(len(self.log_prior), dtype=torch.bool, device=device)
        silence[list(self.silence_pdfs)] = True
        return silence

    def frame_scores(self, logits: Tensor, rows: Tensor, pdfs: Tensor, quiet: Tensor) -> Tensor:
        """Return the scores of senones ``pdfs`` (M,) in frames ``rows`` (M,), as ``NetworkScorer`` gives them."""
        prior = self.log_prior.to(logits)
        total = torch.logsumexp(logits, 1)
        scores = (
            logits.flatten().index_select(0, rows * logits.shape[1] + pdfs) - total.index_select(0, rows) - prior[pdfs]
        )
        if not self.silence_pdfs:
            return scores
        silent = self._silence(logits.device)[pdfs]
        members = list(self.silence_pdfs)
        pooled = torch.logsumexp(logits[:, members], 1) - total - torch.logsumexp(prior[members], 0)
        scores = torch.where(silent, pooled.index_select(0, rows), scores)
        fixed = torch.where(silent, 0.0, NOT_SILENCE).to(scores)
        return torch.where(quiet[rows], fixed, scores)
