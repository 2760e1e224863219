"""LDA, MLLT and fMLLR against direct solutions and known distortions."""

from __future__ import annotations

import itertools
from pathlib import Path

import kaldiio
import numpy as np
import pytest

from asr_kd.common.errors import UserError
from asr_kd.hmm import transforms
from asr_kd.hmm.adaptation import speaker_transforms
from asr_kd.hmm.gmm import Gmms, accumulate, moved
from asr_kd.hmm.scores import StoredTransforms, write_transforms
from asr_kd.hmm.transforms import (
    MIN_FRAMES,
    ClassStatistics,
    RowStatistics,
    apply_fmllr,
    fmllr,
    fmllr_statistics,
    lda,
    maximise,
    mllt_statistics,
)

DIM = 5


def model(pdfs: int = 8, seed: int = 0) -> Gmms:
    """Two Gaussians for each pdf."""
    rng = np.random.default_rng(seed)
    weights, shape = np.full(2 * pdfs, 0.5), (2 * pdfs, DIM)
    return Gmms(np.arange(0, 2 * pdfs + 1, 2), weights, rng.normal(0, 3, shape), rng.uniform(0.5, 2, shape))


def drawn(gmms: Gmms, frames: int = 4000, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, D) of the model and their pdfs."""
    rng = np.random.default_rng(seed)
    gaussians = rng.integers(0, len(gmms.means), frames)
    return rng.normal(gmms.means[gaussians], np.sqrt(gmms.variances[gaussians])), gaussians // 2


def log_likelihood(gmms: Gmms, frames: np.ndarray, labels: np.ndarray, transform: np.ndarray) -> float:
    """Of the frames themselves: of the transformed ones, and the logarithm of the determinant for each."""
    adapted = frames @ transform[:, :DIM].T + transform[:, DIM:].sum(1)
    _, log_det = np.linalg.slogdet(transform[:, :DIM])
    return float(accumulate(gmms, adapted, labels).log_likelihood + len(frames) * log_det)


def statistics(gmms: Gmms, frames: np.ndarray, labels: np.ndarray, adapted: np.ndarray) -> RowStatistics:
    """Of one speaker."""
    return fmllr_statistics(gmms, frames, labels, adapted, gmms, np.zeros(len(frames), int))[0]


def test_lda_finds_the_directions_of_the_generalised_eigenproblem() -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(6, 6))
    labels = rng.integers(0, 7, 3000)
    frames = (rng.normal(0, [4, 3, 2, 1, 0.5, 0], (7, 6))[labels] + rng.normal(size=(3000, 6))) @ mix.T
    stats = ClassStatistics.zeros(7, 6)
    for part in np.split(np.arange(3000), 5):
        stats.add(frames[part], labels[part])
    transform = lda(stats, 4)
    means = np.stack([frames[labels == i].mean(0) for i in range(7)])
    within = np.cov((frames - means[labels]).T, bias=True)
    between = np.cov(frames.T, bias=True) - within
    values = np.sort(np.linalg.eigvals(np.linalg.solve(within, between)).real)[::-1]
    np.testing.assert_allclose(transform @ within @ transform.T, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(transform @ between @ transform.T, np.diag(values[:4]), atol=1e-9)


def test_lda_of_features_with_constant_directions_is_finite() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 500)
    frames = np.hstack([rng.normal(size=(500, 3)) + labels[:, None] * [0, 1, 3], np.ones((500, 2))])
    stats = ClassStatistics.zeros(4, 5)  # one class has no frames
    stats.add(frames, labels)
    transform = lda(stats, 5)
    assert np.isfinite(transform).all() and abs(transform[0, 2]) > abs(transform[0, 0])


def test_a_known_distortion_of_a_speaker_is_undone_and_the_likelihood_rises() -> None:
    gmms, rng = model(), np.random.default_rng(2)
    clean, labels = drawn(gmms, 20000)
    matrix, offset = np.eye(DIM) + 0.2 * rng.normal(size=(DIM, DIM)), rng.normal(size=DIM)
    frames = (clean - offset) @ np.linalg.inv(matrix).T  # so that matrix x + offset is clean
    transform = np.eye(DIM, DIM + 1)
    likelihoods = [log_likelihood(gmms, frames, labels, transform)]
    for _ in range(12):  # the posteriors get better with the transform
        stats = statistics(gmms, frames, labels, apply_fmllr(frames, transform))
        transform = maximise([stats], transform)[0]
        likelihoods.append(log_likelihood(gmms, frames, labels, transform))
    assert all(after > before - 1 for before, after in itertools.pairwise(likelihoods))
    np.testing.assert_allclose(transform, np.column_stack([matrix, offset]), atol=0.06)
    assert likelihoods[-1] > log_likelihood(gmms, frames, labels, np.column_stack([matrix, offset])) - 1


def test_every_sweep_increases_the_auxiliary_function(monkeypatch) -> None:
    gmms = model()
    frames, labels = drawn(gmms)
    frames = frames @ np.random.default_rng(3).normal(size=(DIM, DIM))
    stats = statistics(gmms, frames, labels, frames)
    transform = np.eye(DIM, DIM + 1)
    monkeypatch.setattr(transforms, "SWEEPS", 1)
    value = stats.auxiliary(transform)
    for _ in range(10):
        transform = maximise([stats], transform)[0]
        value, before = stats.auxiliary(transform), value
        assert value >= before - 1e-9 * abs(before)
    monkeypatch.undo()
    # Nothing next to the maximum is higher: the determinant counts as it should.
    best = maximise([stats], transform)[0]
    for seed in range(20):
        near = best + 1e-3 * np.random.default_rng(seed).normal(size=best.shape)
        assert stats.auxiliary(near) < stats.auxiliary(best)


def test_transforms_of_several_speakers_are_those_of_each() -> None:
    gmms, rng = model(), np.random.default_rng(6)
    frames, labels = drawn(gmms)
    speakers = rng.choice([0, 2, 5], len(frames), p=[0.1, 0.2, 0.7])
    frames = frames * (1 + 0.1 * speakers[:, None]) + speakers[:, None]
    together = fmllr_statistics(gmms, frames, labels, frames, gmms, speakers)
    assert together.keys() == {0, 2, 5}
    found = maximise([*together.values()], np.eye(DIM, DIM + 1))
    for speaker, stats, transform in zip(together, together.values(), found, strict=True):
        own = speakers == speaker
        alone = statistics(gmms, frames[own], labels[own], frames[own])
        assert stats.frames == own.sum()
        np.testing.assert_allclose(stats.quadratic, alone.quadratic, rtol=1e-6)
        np.testing.assert_allclose(transform, maximise([alone], np.eye(DIM, DIM + 1))[0], atol=1e-5)


def test_the_auxiliary_function_is_the_log_likelihood_of_single_gaussians() -> None:
    rng = np.random.default_rng(4)
    gmms = Gmms(np.arange(4), np.ones(3), rng.normal(size=(3, DIM)), rng.uniform(0.5, 2, (3, DIM)))
    frames, labels = rng.normal(size=(300, DIM)), rng.integers(0, 3, 300)
    stats = statistics(gmms, frames, labels, frames)
    first, second = np.eye(DIM, DIM + 1), np.eye(DIM, DIM + 1) + 0.1 * rng.normal(size=(DIM, DIM + 1))
    gain = log_likelihood(gmms, frames, labels, second) - log_likelihood(gmms, frames, labels, first)
    assert stats.auxiliary(second) - stats.auxiliary(first) == pytest.approx(gain, rel=1e-4)


def test_mllt_makes_the_covariances_diagonal() -> None:
    gmms, rng = model(), np.random.default_rng(5)
    clean, labels = drawn(gmms, 20000)
    mix = np.eye(DIM) + 0.4 * rng.normal(size=(DIM, DIM))
    frames = clean @ mix.T
    mixed = Gmms(gmms.starts, gmms.weights, gmms.means @ mix.T, (mix**2 @ gmms.variances.T).T)
    transform, likelihoods = np.eye(DIM), []
    for _ in range(12):
        features = frames @ transform.T
        likelihoods.append(log_likelihood(mixed, frames, labels, np.column_stack([transform, np.zeros(DIM)])))
        half = len(frames) // 2
        stats = mllt_statistics(mixed, features[:half], labels[:half])
        stats += mllt_statistics(mixed, features[half:], labels[half:])
        update = maximise([stats], np.eye(DIM))[0]
        assert stats.auxiliary(update) >= stats.auxiliary(np.eye(DIM)) - 1e-6
        transform = update @ transform
        mixed = Gmms(mixed.starts, mixed.weights, mixed.means @ update.T, mixed.variances)
        floor = np.full(DIM, 1e-3)
        mixed = moved(mixed, accumulate(mixed, frames @ transform.T, labels), floor)
    assert all(after > before - 1 for before, after in itertools.pairwise(likelihoods))
    undone = transform @ mix  # the product of a permutation and a diagonal matrix, up to errors of estimation
    largest = np.abs(undone).max(1, keepdims=True)
    assert np.sort(np.abs(undone) / largest, axis=1)[:, -2].max() < 0.15


def test_mllt_statistics_are_those_of_centred_frames() -> None:
    gmms = model()
    frames, labels = drawn(gmms, 200)
    expected = np.zeros((DIM, DIM, DIM))
    for x, pdf in zip(frames, labels, strict=True):
        span = slice(2 * pdf, 2 * pdf + 2)
        logs = -0.5 * ((x - gmms.means[span]) ** 2 / gmms.variances[span] + np.log(gmms.variances[span])).sum(1)
        posteriors = np.exp(logs - np.logaddexp.reduce(logs))
        for gamma, mean, variance in zip(posteriors, gmms.means[span], gmms.variances[span], strict=True):
            expected += gamma * np.outer(x - mean, x - mean) / variance[:, None, None]
    np.testing.assert_allclose(mllt_statistics(gmms, frames, labels).quadratic, expected, rtol=1e-4, atol=1e-3)


def test_speakers_with_little_or_no_speech_keep_the_identity() -> None:
    gmms = model()
    frames, labels = drawn(gmms)
    stats = [statistics(gmms, part + 1, names, part + 1) for part, names in (
        (frames[: MIN_FRAMES - 1], labels[: MIN_FRAMES - 1]), (frames[:300], labels[:300]), (frames[300:], labels[300:])
    )]  # fmt: skip
    parts = [{"short": stats[0], "long": stats[1]}, {"long": stats[2]}, {}]
    found = speaker_transforms(parts, [["long", "short"], ["long", "quiet"], ["quiet"]], DIM)
    assert found.keys() == {"long", "short", "quiet"}
    for name in ("short", "quiet"):
        np.testing.assert_array_equal(found[name], np.eye(DIM, DIM + 1))
    together = statistics(gmms, frames + 1, labels, frames + 1)
    np.testing.assert_allclose(found["long"], fmllr([together], DIM)[0], atol=1e-5)
    np.testing.assert_allclose(found["long"][:, DIM], -1, atol=0.2)


def test_transforms_are_read_by_kaldi_and_names_may_have_spaces(tmp_path: Path) -> None:
    matrices = {"a b": np.eye(2, 3), "é/c": np.arange(6.0).reshape(2, 3)}
    write_transforms(tmp_path / "fmllr.ark", matrices)
    assert dict(kaldiio.load_ark(str(tmp_path / "fmllr.ark"))).keys() == {"a%20b", "%C3%A9/c"}
    again = StoredTransforms(tmp_path / "fmllr.ark")
    assert again.keys() == matrices.keys()
    for name in again:
        np.testing.assert_array_equal(again[name], matrices[name])
    write_transforms(tmp_path / "fmllr.ark", {"a b": np.ones((2, 3))})
    assert (StoredTransforms(tmp_path / "fmllr.ark")["a b"] == 1).all(), "a file that is written again is read again"
    (tmp_path / "fmllr.ark").write_bytes((tmp_path / "fmllr.ark").read_bytes()[:-3])
    with pytest.raises(UserError, match="damaged"):
        dict(StoredTransforms(tmp_path / "fmllr.ark"))
