"""Shared fixtures: a small corpus that passes through the real first stages, with senones that can be learnt."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile
from distributed import LocalCluster
from lhotse import CutSet
from lhotse.features.io import NumpyFilesWriter
from scipy.signal import lfilter
from training import config, inline_jobs, store_config

from asr_kd.common.checksums import array_checksum
from asr_kd.common.storage import Stage, save_array, write_json
from asr_kd.corpora import __main__ as corpora_stage
from asr_kd.features.__main__ import main as features_stage
from asr_kd.features.config import Config as FeaturesConfig
from asr_kd.soft_targets import __main__ as soft_targets_stage
from asr_kd.train import __main__ as train

SENONES = 6


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the longest file first, so that parallel runs do not wait for it at the end."""
    items.sort(key=lambda item: item.path.stem != "test_end_to_end")


@dataclass(frozen=True)
class Prepared:
    """Folders of a prepared experiment."""

    data: Path
    features: Path
    senones: Path


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Prepared:
    """A corpus of noise whose resonance takes six frequencies; the senone of a frame is its resonance."""
    root = tmp_path_factory.mktemp("prepared")
    truth: dict[str, np.ndarray] = {}
    for part, speakers in (("train-x", 6), ("dev-x", 2), ("test-x", 2)):
        for speaker in range(speakers):
            _speaker(root / "corpus" / part, {"train-x": 100, "dev-x": 200, "test-x": 300}[part] + speaker, truth)
    parts = {"train": ("train-x",), "dev": ("dev-x",), "test": ("test-x",)}
    with inline_jobs():
        corpora_stage.main(corpora_stage.Config(root / "data", corpus_dir=root / "corpus", **parts))
        features_stage(FeaturesConfig(root / "data", root / "features"))
    _align(root / "features", root / "senones", truth)
    return Prepared(root / "data", root / "features", root / "senones")


def _speaker(folder: Path, speaker: int, truth: dict[str, np.ndarray]) -> None:
    random = np.random.default_rng(speaker)
    chapter = folder / str(speaker) / "1"
    chapter.mkdir(parents=True)
    lines = []
    for number in range(4):
        name = f"{speaker}-1-{number:04d}"
        classes = random.integers(SENONES, size=12)
        pieces = []
        for kind in classes:
            pole = 0.97 * np.exp(2j * np.pi * (0.03 + 0.06 * kind))
            noise = random.standard_normal(1600 * 2)
            pieces.append(lfilter([1.0], [1.0, -2 * pole.real, abs(pole) ** 2], noise)[:3200])
        samples = np.concatenate(pieces)
        soundfile.write(chapter / f"{name}.flac", 0.3 * samples / np.abs(samples).max(), 16000)
        truth[name] = np.repeat(classes, 20)
        lines.append(f"{name} HELLO WORLD\n")
    (chapter / f"{speaker}-1.trans.txt").write_text("".join(lines))


def _align(features_dir: Path, out: Path, truth: dict[str, np.ndarray]) -> None:
    stage = Stage("senones", out, {}, [features_dir], elsewhere=["senones/*"])
    stage.begin()
    splits = {}
    for split in ("train", "dev", "test"):
        cuts = []
        with NumpyFilesWriter(out / "senones") as writer:
            for cut in CutSet.from_file(features_dir / f"cuts_{split}.jsonl.gz"):
                senones = truth[cut.id][: cut.num_frames].astype(np.int32)
                cut.senones = writer.store_array(cut.id, senones, temporal_dim=0, frame_shift=0.01, start=0)
                cut.senones_crc32 = array_checksum(senones)
                cuts.append(cut)
        CutSet.from_cuts(cuts).to_file(out / f"cuts_{split}.jsonl.gz")
        splits[split] = {"frames": sum(cut.num_frames for cut in cuts)}
    write_json(out / "hmm.json", {"num_pdfs": SENONES, "senones": "resonances", "silence_pdfs": [0], "splits": splits})
    save_array(out / "pdf_counts.npy", np.bincount(np.concatenate(list(truth.values())), minlength=SENONES))
    stage.finish()


@pytest.fixture(scope="session")
def scheduler() -> Iterator[str]:
    """The address of a real Dask scheduler with two worker processes."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, resources={"gpu": 1}, dashboard_address=None
    ) as cluster:  # fmt: skip
        yield cluster.scheduler_address


@pytest.fixture(scope="session")
def teachers(prepared, tmp_path_factory) -> Path:
    """Two networks with different seeds."""
    out = tmp_path_factory.mktemp("models") / "teachers"
    with inline_jobs():
        train.main(config(prepared, out, seeds=(0, 1)))
    return out


@pytest.fixture(scope="session")
def store(prepared, teachers, tmp_path_factory) -> Path:
    """The teachers' soft targets at T = 1 and T = 2."""
    out = tmp_path_factory.mktemp("targets") / "store"
    with inline_jobs():
        soft_targets_stage.main(store_config(prepared, teachers, out))
    return out


@pytest.fixture
def inline() -> Iterator[None]:
    """See ``inline_jobs``."""
    with inline_jobs():
        yield
