"""Features that others made, on Lhotse cuts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lhotse import CutSet, Features, NumpyFilesWriter, SupervisionSegment
from lhotse.cut import MonoCut

from asr_kd.common.errors import UserError
from asr_kd.corpora.manifests import jsonl_writer
from asr_kd.features.config import Config
from asr_kd.features.extraction import extract_corpus
from asr_kd.features.extractors import extract, raw_features
from asr_kd.features.front_end import FrontEnd
from asr_kd.features.normalise import Normaliser, quiet_frames

DIM = 24


def given_cut(folder: Path, name: str, frames: int, **features: Any) -> MonoCut:
    """A cut of 1 s with so many frames of features."""
    values = 7 + 3 * np.random.default_rng(frames).standard_normal((frames, DIM)).astype(np.float32)
    writer = NumpyFilesWriter(folder / "arrays")
    stored = {
        "type": "wav2vec", "num_frames": frames, "num_features": DIM, "frame_shift": 0.01, "sampling_rate": 16000,
        "start": 0.0, "duration": 1.0, "storage_type": "numpy_files", "storage_path": "arrays",
        "storage_key": writer.write(name, values), "recording_id": name, "channels": 0,
    }  # fmt: skip
    supervision = SupervisionSegment(name, name, 0.0, 1.0, text="HELLO", speaker="x")
    return MonoCut(name, 0.0, 1.0, 0, [supervision], features=Features(**{**stored, **features}))


def compute(root: Path, cuts: list[MonoCut], **options: Any) -> dict[str, dict[str, int]]:
    with jsonl_writer(root / "cuts_train.jsonl.gz") as add:
        for cut in cuts:
            add(cut.to_dict())
    with ThreadPoolExecutor(1) as executor:
        return extract_corpus(Config(root, root / "out", kind="given", **options), executor)


def test_given_features_are_copied_and_normalised_by_all_their_frames(tmp_path: Path) -> None:
    cuts = [given_cut(tmp_path, f"u{frames}", frames) for frames in (100, 98, 101)]
    assert compute(tmp_path, cuts)["train"] == {"cuts": 3, "frames": 300, "skipped": 0}
    known = FrontEnd.load(tmp_path / "out")
    assert str(known) == "24 features (wav2vec) at 16000 Hz (made elsewhere), normalised by utterance"
    found = list(CutSet.from_file(tmp_path / "out" / "cuts_train.jsonl.gz"))
    for cut, before in zip(found, cuts, strict=True):
        source = np.load(tmp_path / "arrays" / before.features.storage_key)
        raw = raw_features(cut)
        assert raw.shape == (100, DIM)
        np.testing.assert_array_equal(raw[:98], source[:98])
        features = Normaliser.load(tmp_path / "out")(cut)
        np.testing.assert_allclose(features.mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(features.std(0), 1, atol=1e-4)
        assert not quiet_frames(features).any()
    np.testing.assert_array_equal(raw_features(found[1])[98:], raw_features(found[1])[[97, 97]])
    with pytest.raises(UserError, match=r"cannot be computed, but are 24 features \(wav2vec\)"):
        extract(known, np.random.default_rng(0).normal(0, 0.1, 16000))


def test_given_features_can_stay_as_they_are(tmp_path: Path) -> None:
    compute(tmp_path, [given_cut(tmp_path, "a", 100)], normalise="none")
    assert str(FrontEnd.load(tmp_path / "out")).endswith("(made elsewhere), not normalised")
    (cut,) = CutSet.from_file(tmp_path / "out" / "cuts_train.jsonl.gz")
    np.testing.assert_array_equal(Normaliser.load(tmp_path / "out")(cut), raw_features(cut))


def test_an_id_that_occurs_twice(tmp_path: Path) -> None:
    cut = given_cut(tmp_path, "a", 100)
    with pytest.raises(UserError, match=r"two cuts named a in .*cuts_train.jsonl.gz: give each an id of its own"):
        compute(tmp_path, [cut, cut])


def not_a_number(cut: MonoCut, folder: Path) -> None:
    values = np.load(path := folder / "arrays" / cut.features.storage_key)
    values[50, 3] = np.nan
    np.save(path, values)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda cut, _: setattr(cut.features, "num_features", 23), "23 features (wav2vec) instead of 24"),
        (lambda cut, _: setattr(cut.features, "type", "other"), "24 features (other) instead of"),
        (lambda cut, _: setattr(cut.features, "frame_shift", 0.02), "a frame every 20 ms instead of every 10 ms"),
        (lambda cut, _: setattr(cut.features, "storage_type", "kaldiio"), "stored as kaldiio: write them to files"),
        (lambda cut, _: setattr(cut.features, "storage_type", "memory_raw"), "stored as memory_raw"),
        (lambda cut, _: setattr(cut.features, "storage_key", "none.npy"), "unreadable features (FileNotFoundError"),
        (lambda cut, _: setattr(cut, "supervisions", 2 * cut.supervisions), "not one supervision"),
        (lambda cut, _: setattr(cut.supervisions[0], "speaker", None), "no transcript or no speaker"),
        (lambda cut, _: setattr(cut, "duration", 1.2), "features of shape (100, 24) in a cut of 120 frames"),
        (lambda cut, _: setattr(cut, "features", None), "no features"),
        (not_a_number, "NaN or infinite features"),
    ],
)
def test_features_that_cannot_be_used_are_listed(
    tmp_path: Path, change: Callable[[MonoCut, Path], None], reason: str
) -> None:
    cuts = [given_cut(tmp_path, name, 100) for name in ("good", "bad")]
    change(cuts[1], tmp_path)
    assert compute(tmp_path, cuts)["train"] == {"cuts": 1, "frames": 100, "skipped": 1}
    assert reason in (tmp_path / "out" / "skipped_train.tsv").read_text()


def test_cuts_without_features(prepared, tmp_path: Path) -> None:
    cut = given_cut(tmp_path, "a", 100)
    cut.features = None
    with pytest.raises(UserError, match="have no features: give --data a folder of Lhotse cuts"):
        compute(tmp_path, [cut])
