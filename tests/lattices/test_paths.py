"""Sums over paths, criteria and their gradients, compared with all paths of small lattices one by one."""

import numpy as np
import pytest
import torch
from toy_lattices import all_paths, random_lattice

from asr_kd.lattices.archive import parse_lattice
from asr_kd.lattices.batch import LatticeBatch
from asr_kd.lattices.criteria import SequenceCriterion
from asr_kd.lattices.paths import expected_sum, log_sum, occupancies

PDFS, FRAMES, SCALE, SILENCE = 5, (4, 2, 5), 0.3, (0, 3)
LABELS = torch.tensor([0, 1, 2, 4, 3, -100, 1, 1, 0, 2, 4])
QUIET = torch.tensor([True, *[False] * 8, True, False])


@pytest.fixture(scope="module")
def lines() -> list[list[bytes]]:
    random = np.random.default_rng(3)
    return [random_lattice(random, frames) for frames in FRAMES]


@pytest.fixture(scope="module")
def batch(lines) -> LatticeBatch:
    return LatticeBatch.of([parse_lattice(lattice) for lattice in lines])


@pytest.fixture
def logits() -> torch.Tensor:
    return (3 * torch.randn(sum(FRAMES), PDFS, dtype=torch.float64, generator=torch.manual_seed(0))).requires_grad_()


def frame_scores(logits: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """log posterior − log prior (N, C), with the silences pooled, and certain in quiet frames."""
    posterior, silence = logits.softmax(1), list(SILENCE)
    scores = posterior.log() - prior
    pooled = posterior[:, silence].sum(1).log() - prior[silence].exp().sum().log()
    known = torch.full_like(scores, -30.0)
    known[:, silence] = 0.0
    is_silence = torch.isin(torch.arange(PDFS), torch.tensor(silence))
    return torch.where(QUIET[:, None], known, torch.where(is_silence, pooled[:, None], scores))


def brute_force(name: str, lines: list[list[bytes]], logits: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    total, first = torch.zeros((), dtype=torch.float64), 0
    scores = frame_scores(logits, prior)
    for lattice, frames in zip(lines, FRAMES, strict=True):
        rows, label = scores[first : first + frames], LABELS[first : first + frames].tolist()
        first += frames
        paths = [(path[:-1], sum(arc[2] for arc in path)) for path in all_paths(lattice)]
        score = torch.stack([g + SCALE * sum(rows[t, arc[0]] for t, arc in enumerate(path)) for path, g in paths])
        if name == "smbr":
            right = [
                sum(arc[0] == c or (arc[0] in SILENCE and c in SILENCE) for arc, c in zip(path, label, strict=True))
                for path, _ in paths
            ]
            total = total + (score.softmax(0) * torch.tensor(right)).sum()
        elif name == "mmi":
            known = [{arc[0] for path, _ in paths for arc in [path[t]]} for t in range(frames)]
            pooled = [k | set(SILENCE) if k & set(SILENCE) else k for k in known]
            kept = torch.stack([rows[t] if c in pooled[t] else rows[t].detach() for t, c in enumerate(label)])
            score = torch.stack([g + SCALE * sum(kept[t, arc[0]] for t, arc in enumerate(path)) for path, g in paths])
            total = total + SCALE * sum(kept[t, c] for t, c in enumerate(label) if c >= 0) - score.logsumexp(0)
        else:
            taught = torch.tensor([g + SCALE * sum(arc[3] for arc in path) for path, g in paths], dtype=torch.float64)
            total = total + (taught.softmax(0) * (score.log_softmax(0) - taught.log_softmax(0))).sum()
    return total / sum(FRAMES)


@pytest.mark.parametrize("name", ["smbr", "mmi", "kl"])
def test_criteria_and_gradients_are_those_of_all_paths_one_by_one(lines, batch, logits, name):
    prior = torch.randn(PDFS, dtype=torch.float64, generator=torch.manual_seed(1)).log_softmax(0)
    loss, criterion = SequenceCriterion(name, SCALE, prior, SILENCE)(logits, LABELS, QUIET, batch)
    expected = brute_force(name, lines, logits, prior)
    assert criterion.item() == pytest.approx(expected.item(), abs=1e-6)
    assert loss.item() == pytest.approx(-expected.item() / SCALE, abs=1e-5)
    (found,) = torch.autograd.grad(loss, logits)
    (wanted,) = torch.autograd.grad(-expected / SCALE, logits)
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
    assert found.abs().sum() > 0.1


def test_gradients_are_exact(batch):
    scores = torch.randn(len(batch.source), dtype=torch.float64, generator=torch.manual_seed(2)).requires_grad_()
    values = torch.rand(len(batch.source), dtype=torch.float64, generator=torch.manual_seed(3))
    assert torch.autograd.gradcheck(lambda s: (log_sum(s, batch), expected_sum(s, values, batch)), (scores,))
    (gradient,) = torch.autograd.grad(log_sum(scores, batch).sum(), scores)
    torch.testing.assert_close(gradient, occupancies(scores.detach(), batch))
    assert (
        torch.zeros(len(FRAMES))
        .double()
        .index_add_(0, batch.utterance, gradient)
        .allclose(torch.tensor([frames + 1.0 for frames in FRAMES]).double())
    )


def test_scores_of_any_size_are_summed(batch):
    """No utterance, however improbable, is lost beside its neighbours in the batch."""
    scores = torch.full((len(batch.source),), -800.0).double() * (batch.utterance + 1)
    posteriors = occupancies(scores, batch)
    torch.testing.assert_close(posteriors, occupancies(torch.zeros_like(scores), batch))
    assert log_sum(scores, batch).isfinite().all()


def test_a_network_that_agrees_with_the_decoding_has_no_divergence(lines):
    """The scores of the paths are compared, whatever constant all paths of a frame share."""
    lattice = parse_lattice(lines[0])
    prior = torch.full((PDFS,), -np.log(PDFS), dtype=torch.float64)
    logits = torch.randn(FRAMES[0], PDFS, dtype=torch.float64, generator=torch.manual_seed(4))
    frames = lattice["pdf"] >= 0
    lattice["acoustic"][frames] = logits[lattice["frame"][frames], lattice["pdf"][frames]].numpy() + 7
    quiet = torch.zeros(FRAMES[0], dtype=torch.bool)
    loss, _ = SequenceCriterion("kl", SCALE, prior)(
        logits.requires_grad_(), LABELS[: FRAMES[0]], quiet, LatticeBatch.of([lattice])
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert gradient.abs().max() < 1e-6
