"""GMMs, features and Kaldi's model files."""

from __future__ import annotations

import itertools
from pathlib import Path

import kaldi_hmm_gmm
import numpy as np
import pytest
from front_ends import front_end
from kaldi_models import kaldi_gmms
from lhotse import Features, MonoCut
from lhotse.features.io import MemoryRawWriter

from asr_kd.common.errors import UserError
from asr_kd.features.front_end import FrontEnd
from asr_kd.features.normalise import Normaliser
from asr_kd.hmm.cepstra import apply_transform, cepstra, delta_transform, num_cepstra
from asr_kd.hmm.gmm import Gmms, accumulate, gaussian_posteriors, mix_up, mle_update
from asr_kd.hmm.kaldi_io import read_model, write_model
from asr_kd.hmm.topology import topology_text


def mixtures(pdfs: int = 5, dim: int = 6, seed: int = 0) -> Gmms:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, pdfs)
    total = int(sizes.sum())
    weights = np.concatenate([rng.dirichlet(np.ones(size)) for size in sizes])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Gmms(starts, weights, rng.normal(0, 2, (total, dim)), rng.uniform(0.5, 2, (total, dim)))


def test_scores_equal_those_of_kaldi() -> None:
    gmms = mixtures()
    frames = np.random.default_rng(1).normal(0, 2, (40, 6)).astype(np.float32)
    kaldi = kaldi_gmms(gmms)
    expected = [[kaldi.log_likelihood(pdf, frame) for pdf in range(5)] for frame in frames]
    scores = gmms.scores(frames)
    assert scores.dtype == np.float32 and scores.flags.c_contiguous
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    pdfs = np.array([4, 1])
    np.testing.assert_allclose(gmms.scores(frames, pdfs), scores[:, pdfs], atol=1e-5)


def test_statistics_equal_those_of_kaldi() -> None:
    gmms = mixtures()
    rng = np.random.default_rng(2)
    frames, labels = rng.normal(0, 2, (60, 6)).astype(np.float32), rng.integers(0, 4, 60)
    ours = accumulate(gmms, frames, labels)
    model = kaldi_gmms(gmms)
    theirs = kaldi_hmm_gmm.AccumAmDiagGmm()
    theirs.init(model, int(kaldi_hmm_gmm.str_to_gmm_flags("mvw")))
    for frame, label in zip(frames, labels, strict=True):
        theirs.accumulate_for_gmm(model, frame, int(label), 1.0)
    assert ours.frames == 60
    assert ours.log_likelihood == pytest.approx(theirs.tot_log_like, rel=1e-5)
    for pdf in range(5):
        span = slice(gmms.starts[pdf], gmms.starts[pdf + 1])
        np.testing.assert_allclose(ours.occupation[span], theirs.get_acc(pdf).occupancy, atol=1e-3)
        np.testing.assert_allclose(ours.sums[span], theirs.get_acc(pdf).mean_accumulator, atol=1e-3)


def test_posteriors_of_a_part_do_not_depend_on_the_others() -> None:
    gmms, rng = mixtures(dim=39), np.random.default_rng(6)
    frames, labels = rng.normal(0, 2, (200, 39)).astype(np.float32), rng.integers(0, 4, 200)
    parts = np.repeat([0, 1, 2], [30, 10, 160])

    def posteriors(rows: np.ndarray) -> dict[int, np.ndarray]:
        found = gaussian_posteriors(gmms, frames[rows], labels[rows], parts[rows])
        return {int(rows[row]): column for part in found for row, column in zip(part[0], part[2].T, strict=True)}

    together = posteriors(np.arange(200))
    assert together.keys() == set(range(200))
    for part in range(3):
        for row, column in posteriors(np.flatnonzero(parts == part)).items():
            np.testing.assert_array_equal(column, together[row])
            np.testing.assert_allclose(column.sum(), 1, rtol=1e-6)


def test_em_increases_the_likelihood_and_splitting_meets_its_target() -> None:
    rng = np.random.default_rng(3)
    centres = rng.normal(0, 4, (3, 4, 2))
    labels = rng.integers(0, 3, 3000)
    frames = (centres[labels, rng.integers(0, 4, 3000)] + rng.normal(0, 0.5, (3000, 2))).astype(np.float32)
    gmms = Gmms(np.arange(4), np.ones(3), np.zeros((3, 2)), np.ones((3, 2)))
    likelihoods = []
    for step in range(25):
        stats = accumulate(gmms, frames, labels)
        likelihoods.append(stats.log_likelihood / stats.frames)
        gmms = mle_update(gmms, stats, np.full(2, 1e-3))
        if step in (2, 8):
            gmms = mix_up(gmms, np.bincount(labels, minlength=3).astype(float), 6 if step == 2 else 12, rng)
            assert gmms.starts[-1] == (6 if step == 2 else 12)
    assert all(later > earlier - 1e-2 for earlier, later in itertools.pairwise(likelihoods[1:]))
    assert likelihoods[-1] > likelihoods[2] + 0.5
    np.testing.assert_allclose(np.add.reduceat(gmms.weights, gmms.starts[:-1]), 1)


def test_a_pdf_without_frames_keeps_one_gaussian() -> None:
    gmms = mixtures()
    frames = np.random.default_rng(4).normal(0, 2, (100, 6)).astype(np.float32)
    after = mle_update(gmms, accumulate(gmms, frames, np.zeros(100, int)), np.full(6, 0.01))
    assert after.num_pdfs == 5 and (np.diff(after.starts)[1:] == 1).all()
    assert np.isfinite(after.scores(frames)).all()


def test_deltas_are_slopes_and_edges_are_padded() -> None:
    ramp = np.arange(20, dtype=np.float32)[:, None] * np.ones(13, np.float32)
    features = apply_transform(ramp, delta_transform(13))
    assert features.shape == (20, 39)
    np.testing.assert_allclose(features[5:15, 13], 1, atol=1e-5)
    np.testing.assert_allclose(features[5:15, 26], 0, atol=1e-5)
    np.testing.assert_allclose(apply_transform(np.ones((3, 13), np.float32), delta_transform(13))[:, 13:], 0, atol=1e-5)


def in_memory(values: np.ndarray, known: FrontEnd) -> MonoCut:
    stored = Features(
        known.extractor, len(values), values.shape[1], 0.01, known.sampling_rate, 0, len(values) / 100,
        "memory_raw", "", MemoryRawWriter().write("", values),
    )  # fmt: skip
    return MonoCut("a", 0, len(values) / 100, 0, features=stored)


def test_log_mels_of_any_number_have_thirteen_cepstra_and_other_features_stay_as_they_are() -> None:
    for known, expected in (
        (front_end(), 13), (front_end(num_filters=64, sampling_rate=8000), 13), (front_end(num_filters=7), 7),
        (front_end(kind="mfcc", num_ceps=20), 20), (FrontEnd("others", 80, 16000, None, {}, "utterance"), 80),
        (FrontEnd("others_fbank", 100, 16000, None, {}, "utterance"), 13),
    ):  # fmt: skip
        cut = in_memory(np.random.default_rng(0).normal(size=(50, known.num_features)), known)
        normaliser = Normaliser(known)
        found = cepstra(cut, normaliser)
        assert found.shape == (50, expected) and num_cepstra(known) == expected
        assert apply_transform(found, delta_transform(expected)).shape == (50, 3 * expected)
        if not known.log_mel:
            np.testing.assert_array_equal(found, normaliser(cut))
    with pytest.raises(UserError, match=r"cannot be trained on 768 features \(wav2vec\).*copy the senones"):
        num_cepstra(FrontEnd("wav2vec", 768, 16000, None, {}, "none"))
    for other in (front_end(num_filters=30), front_end(sampling_rate=8000), front_end(kind="mfcc", num_ceps=40)):
        cut = in_memory(np.zeros((50, other.num_features)), other)
        with pytest.raises(
            UserError, match=r"a has .* instead of 40 log-mels at 16000 Hz .*: give --features the folder"
        ):
            Normaliser(front_end())(cut)


@pytest.mark.parametrize("classes", [1, 3, 5])
def test_models_are_preserved_by_kaldis_format(tmp_path: Path, classes: int) -> None:
    topology = kaldi_hmm_gmm.HmmTopology()
    topology.read(topology_text([1, 2, 3, 4], [1, 2], classes))
    topology.check()
    assert [topology.min_length(phone) for phone in (1, 3)] == [max(3, classes), 3]
    assert topology.num_pdf_classes(1) == classes
    tree = kaldi_hmm_gmm.monophone_context_dependency([1, 2, 3, 4], topology.get_phone_to_num_pdf_classes())
    model = kaldi_hmm_gmm.TransitionModel(tree, topology)
    counts = np.arange(model.num_transition_ids + 1, dtype=np.float64) * 7 % 31 + 10
    model.mle_update(counts, kaldi_hmm_gmm.MleTransitionUpdateConfig())
    gmms = mixtures(model.num_pdfs)
    write_model(tmp_path / "x.mdl", model, gmms)
    again, gmms_again = read_model(tmp_path / "x.mdl")
    before, after = model.__getstate__(), again.__getstate__()
    assert [t.__getstate__() for t in before[0]] == [t.__getstate__() for t in after[0]]
    assert before[2:6] == after[2:6] and before[6] == after[6]
    np.testing.assert_allclose(before[7], after[7], atol=1e-5)
    np.testing.assert_allclose(gmms.means, gmms_again.means, atol=1e-4)
    write_model(tmp_path / "y.mdl", again, gmms_again)
    assert len((tmp_path / "x.mdl").read_bytes()) == len((tmp_path / "y.mdl").read_bytes())
    (tmp_path / "x.mdl").write_bytes((tmp_path / "x.mdl").read_bytes()[:-40])
    with pytest.raises(UserError, match="damaged"):
        read_model(tmp_path / "x.mdl")
    with pytest.raises(UserError, match="missing"):
        read_model(tmp_path / "z.mdl")
    gmms.means[1, 0] = np.nan
    with pytest.raises(UserError, match=r"Gaussians of n\.mdl are not finite"):
        write_model(tmp_path / "n.mdl", model, Gmms(gmms.starts, gmms.weights, gmms.means, gmms.variances))
    assert not (tmp_path / "n.mdl").exists()
