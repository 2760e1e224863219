"""Context windows, shuffling across utterances, pools of limited size."""

import weakref

import numpy as np
import pytest
import torch
from lhotse import CutSet, MonoCut
from lhotse.array import TemporalArray
from lhotse.features.io import NumpyFilesWriter

from asr_kd.common.errors import UserError
from asr_kd.features.normalise import QUIET
from asr_kd.models.windows import context_windows, strided_windows
from asr_kd.soft_targets.rows import TargetRows
from asr_kd.train.batches import FrameLoader, window_reader
from asr_kd.train.pools import PoolReader
from asr_kd.train.sources import Manifests

LENGTHS = [30, 7, 1, 50, 26]


@pytest.fixture
def corpus(tmp_path):
    """Five utterances whose features are their own number and that of the frame: [utterance, frame, 0, …]."""
    features, cuts = {}, []
    with NumpyFilesWriter(tmp_path / "senones") as writer:
        for number, length in enumerate(LENGTHS):
            values = np.zeros((length, 4), np.float32)
            values[:, 0], values[:, 1] = number, np.arange(length)
            senones = (100 * number + np.arange(length)).astype(np.int32)
            cut = MonoCut(f"utterance-{number}", 0.0, length / 100, 0, supervisions=[])
            cut.senones = writer.store_array(cut.id, senones, temporal_dim=0, frame_shift=0.01, start=0)
            assert isinstance(cut.senones, TemporalArray)
            features[cut.id] = values
            cuts.append(cut)
    path = tmp_path / "cuts_train.jsonl.gz"
    CutSet.from_cuts(cuts).to_file(path)
    return path, features


def loader(corpus, batch_size=16, pool_frames=1000):
    path, features = corpus
    pools = PoolReader(Manifests([path]), lambda cut: features[cut.id], left=3, right=2, pool_frames=pool_frames)
    return FrameLoader(pools, batch_size)


@pytest.mark.parametrize("pool_frames", [1000, 40])
def test_every_frame_once_with_its_own_window(corpus, pool_frames):
    frames = loader(corpus, batch_size=16, pool_frames=pool_frames)
    seen = []
    for batch in frames.epoch(seed=1):
        windows = batch.inputs.view(-1, 6, 4).numpy()
        for window, label in zip(windows, batch.labels.tolist(), strict=True):
            utterance, frame = divmod(label, 100)
            context = np.arange(frame - 3, frame + 3)
            inside = (context >= 0) & (context < LENGTHS[utterance])
            assert (window[inside, 0] == utterance).all()
            assert (window[inside, 1] == context[inside]).all()
            assert (window[~inside] == np.float32(QUIET)).all()
            seen.append(label)
    assert sorted(seen) == sorted(100 * n + t for n, length in enumerate(LENGTHS) for t in range(length))


def test_order_depends_on_the_seed_alone(corpus):
    def order(seed):
        return torch.cat([b.labels for b in loader(corpus, batch_size=16).epoch(seed)]).tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)
    utterances = np.array(order(1)) // 100
    assert len(set(utterances[:16])) > 1, "a batch mixes utterances"


def test_windows_agree_with_decoding(corpus):
    _, features = corpus
    windows = context_windows(torch.from_numpy(features["utterance-0"]), 3, 2)
    for batch in loader(corpus, batch_size=1000).epoch(0):
        for window, label in zip(batch.inputs, batch.labels.tolist(), strict=True):
            if label < 100:
                torch.testing.assert_close(window, windows[label])


def test_senones_of_another_length_are_refused(corpus):
    path, features = corpus
    features["utterance-3"] = features["utterance-3"][:-1]
    with pytest.raises(UserError, match="utterance-3 has 49 frames and 50 senones"):
        list(loader((path, features)).epoch(0))


def test_windows_are_the_same_on_any_device():
    rows, starts = torch.randn(40, 4).bfloat16(), np.array([3, 0, 34, 3])
    assert torch.equal(window_reader(rows, 6)(starts), strided_windows(rows, 6)[torch.from_numpy(starts)])


def test_soft_targets_are_read_in_the_order_of_the_manifest(corpus):
    path, features = corpus
    asked, given = [], []

    class Store:
        def read(self, key, frames, start, stop):
            number = int(key[-1])
            asked.append(number)
            assert all(array() is None for array in given[:-1]), "a shard that is no longer read can be unmapped"
            assert (frames, start, stop) == (LENGTHS[number], 0, LENGTHS[number])
            logits = torch.full((frames, 8), -20.0).index_fill_(1, torch.tensor(number), 0.0)
            rows = TargetRows.pack(logits.softmax(1), top=1, floor=0.5)
            given.append(weakref.ref(rows.classes))
            return rows

    pools = PoolReader(Manifests([path]), lambda cut: features[cut.id], 3, 2, Store(), dtype=torch.bfloat16)
    pool = pools._read([3, 0, 4])
    assert asked == [0, 3, 4], "a shard of a store is opened once"
    assert pool.soft is not None
    assert pool.soft.classes.tolist() == pool.rows[pool.starts + 3, 0].tolist() == (pool.labels // 100).tolist()
    assert pool.rows.dtype == torch.bfloat16


@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl"])
def test_manifests_read_any_cut(corpus, tmp_path, suffix):
    cuts = CutSet.from_file(corpus[0]).to_eager()
    cuts.to_file(tmp_path / f"cuts{suffix}")
    source = Manifests([tmp_path / f"cuts{suffix}", corpus[0]])
    assert list(source.sizes) == LENGTHS + LENGTHS and source.unlabelled == ""
    assert [source.read(number)[0] for number in (4, 0, 5)] == [cuts[4], cuts[0], cuts[0]]
    draws = Manifests([corpus[0]], bootstrap=1)
    drawn = [draws.read(number)[0].id for number in range(len(LENGTHS))]
    assert drawn == sorted(drawn) and len(set(drawn)) < len(LENGTHS)
    assert [LENGTHS[int(name[-1])] for name in drawn] == list(draws.sizes)


def test_missing_and_empty_manifests_are_refused(corpus, tmp_path):
    with pytest.raises(UserError, match="missing"):
        loader((tmp_path / "nothing.jsonl.gz", {}))
