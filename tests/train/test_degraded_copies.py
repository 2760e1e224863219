"""Degraded copies learn what was said, and what teachers heard, of the clean recording: frame by frame."""

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, MonoCut, NumpyFilesWriter
from training import config, inline_jobs, store_config

from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, save_array, write_json
from asr_kd.corpora import __main__ as corpora
from asr_kd.corpora.copies import clean_id, shared_frames
from asr_kd.corpora.manifests import jsonl_writer
from asr_kd.corpora.shar import __main__ as shar
from asr_kd.features import __main__ as features
from asr_kd.features.normalise import QUIET, Normaliser
from asr_kd.hmm.align import Alignment
from asr_kd.hmm.store import attach_alignment
from asr_kd.hmm.transfer import __main__ as transfer
from asr_kd.soft_targets import __main__ as soft_targets_stage
from asr_kd.soft_targets.store import SoftTargets
from asr_kd.train import __main__ as train
from asr_kd.train.loop import Trainer

CONDITIONS = ("tight", "margins:0.2", "mp3:32")
BEFORE, SPOKEN, AFTER = 40, 100, 60  # frames
SENONES = np.concatenate([np.zeros(BEFORE), np.arange(SPOKEN) // 20 + 1, np.zeros(AFTER)]).astype(np.int32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Features with degraded copies, senones of all of them, teachers of the clean ones, and their soft targets."""
    root = tmp_path_factory.mktemp("degraded")
    random = np.random.default_rng(0)
    for part, speakers in (("train", "12345"), ("dev", "67"), ("test", "89")):
        for speaker in speakers:
            place = root / "corpus" / part / speaker / "1"
            place.mkdir(parents=True)
            for number in range(2):
                levels = np.repeat(np.where(SENONES > 0, 0.02 * (SENONES + 1), 1e-4), 160)
                samples = levels * random.standard_normal(len(levels))
                soundfile.write(place / f"{speaker}-1-{number}.flac", samples, 16000)
            (place / f"{speaker}-1.trans.txt").write_text(f"{speaker}-1-0 HELLO\n{speaker}-1-1 HELLO\n")
    splits = {part: (part,) for part in ("train", "dev", "test")}
    with inline_jobs():
        corpora.main(corpora.Config(root / "data", corpus_dir=root / "corpus", **splits))
        flags = {"degrade": CONDITIONS, "degrade_copies": 2}
        features.main(features.Config(root / "data", root / "features", normalise="speaker", **flags))
        _align(root / "features", root / "senones")
        transfer.main(transfer.Config(root / "features", root / "senones", root / "aligned"))
        train.main(config(Here(root), root / "teachers", seeds=(0, 1), epochs=1))
        soft_targets_stage.main(store_config(Here(root), root / "teachers", root / "store"))
    return root


class Here:
    def __init__(self, root):
        self.features, self.senones = root / "features", root / "aligned"


def _align(source, out):
    stage = Stage("senones", out, {}, [source], elsewhere=["senones/*"])
    stage.begin()
    writer = NumpyFilesWriter(out / "senones")
    for split in ("train", "dev", "test"):
        with jsonl_writer(out / f"cuts_{split}.jsonl.gz") as add:
            for cut in CutSet.from_file(source / f"cuts_{split}.jsonl.gz"):
                words = [("HELLO", BEFORE, BEFORE + SPOKEN)]
                add(attach_alignment(cut, Alignment(SENONES, words=words), writer).to_dict())
    write_json(out / "hmm.json", {"num_pdfs": 6, "senones": "levels", "silence_pdfs": [0], "splits": {}})
    save_array(out / "pdf_counts.npy", np.bincount(SENONES))
    stage.finish()


def cuts(folder, split):
    return list(CutSet.from_file(folder / f"cuts_{split}.jsonl.gz"))


def test_the_splits_and_their_copies(folder):
    names = {path.name.removeprefix("cuts_").removesuffix(".jsonl.gz") for path in folder.glob("features/cuts_*")}
    tests = {"test_tight", "test_margins-0.2", "test_mp3-32"}
    assert names == {"train", "dev", "test", "train_degraded", "dev_degraded", *tests}
    degraded = cuts(folder / "features", "train_degraded")
    assert len(degraded) == 20 and len({cut.id for cut in degraded}) == 20
    assert len(set(map(clean_id, degraded))) == 10
    assert {cut.condition for cut in degraded} == set(CONDITIONS)
    assert {cut.condition for cut in cuts(folder / "features", "test_tight")} == {"tight"}
    assert len(cuts(folder / "features", "dev_degraded")) == 4


def test_features_are_those_of_the_clean_frames(folder):
    clean = {cut.id: cut.load_features() for split in ("train", "test") for cut in cuts(folder / "features", split)}
    for split in ("train_degraded", "test_tight", "test_margins-0.2"):
        for cut in cuts(folder / "features", split):
            shared = shared_frames(cut, cut.num_frames)
            own, expected = cut.load_features()[shared.own], clean[clean_id(cut)][shared.clean]
            assert len(own) == len(expected) == shared.count and shared.total == len(SENONES)
            if cut.condition != "mp3:32":
                assert np.allclose(own[1:-1], expected[1:-1], atol=1e-4)  # windows at the edges reach beyond them


def test_senones_and_times_are_those_of_the_clean_frames(folder):
    seen = set()
    for split in ("train_degraded", "dev_degraded", "test_tight", "test_margins-0.2", "test_mp3-32"):
        for cut in cuts(folder / "aligned", split):
            senones, shared = cut.load_custom("senones"), shared_frames(cut, cut.num_frames)
            assert len(senones) == cut.num_frames == len(cut.load_features())
            assert np.array_equal(senones[shared.own], SENONES[shared.clean])
            assert not np.delete(senones, np.arange(len(senones))[shared.own]).any()
            (word,) = cut.supervisions[0].alignment["word"]
            start = shared.own.start + BEFORE - shared.clean.start
            assert (word.start, word.end) == (pytest.approx(start / 100), pytest.approx((start + SPOKEN) / 100))
            seen.add((cut.condition, len(senones)))
    assert seen == {("tight", SPOKEN + 6), ("margins:0.2", len(SENONES) + 40), ("mp3:32", len(SENONES))}


def test_senones_of_speech_do_not_reach_into_margins(folder, tmp_path):
    for split in ("train", "dev", "test"):
        with jsonl_writer(tmp_path / "spoken" / f"cuts_{split}.jsonl.gz") as add:
            writer = NumpyFilesWriter(tmp_path / "arrays")
            for cut in cuts(folder / "features", split):
                add(attach_alignment(cut, Alignment(np.full(len(SENONES), 3, np.int32)), writer).to_dict())
    write_json(tmp_path / "spoken" / "hmm.json", {"num_pdfs": 6, "silence_pdfs": [2, 5]})
    save_array(tmp_path / "spoken" / "pdf_counts.npy", np.ones(6))
    stage = Stage("senones", tmp_path / "spoken", {})
    stage._write("done", {})
    transfer.main(transfer.Config(folder / "features", tmp_path / "spoken", tmp_path / "out"))
    cut = cuts(tmp_path / "out", "test_margins-0.2")[0]
    assert cut.load_custom("senones").tolist() == [2] * 20 + [3] * len(SENONES) + [2] * 20


def pool_of(folder, **flags):
    cuts = (folder / "aligned" / "cuts_train_degraded.jsonl.gz",)
    flags = {"soft_targets": folder / "store", "temperature": 1.0, "train_cuts": cuts, **flags}
    student = Trainer(config(Here(folder), folder / "student", **flags), 0)
    pools = student.train_loader.pools
    return pools, pools._read(range(len(pools.source.sizes)))


@pytest.mark.parametrize("network", ["dnn", "tdnn"])
def test_students_learn_the_frames_that_the_clean_recording_has(folder, network):
    """By windows of frames, and by chunks of utterances."""
    pools, pool = pool_of(folder, **({} if network == "dnn" else {"network": network, "batch_size": 512}))
    store, normaliser = SoftTargets(folder / "store", temperature=1.0), Normaliser.load(folder / "features")
    first = rows = 0
    for number, size in enumerate(pools.source.sizes):
        (cut,) = pools.source.read(number)
        shared, features = shared_frames(cut, cut.num_frames), normaliser(cut)
        assert size == shared.count == pool.lengths[number]
        frames = slice(first, first + size)
        assert np.array_equal(pool.labels[frames], SENONES[shared.clean])
        targets = store.read(clean_id(cut), len(SENONES), shared.clean.start, shared.clean.stop)
        found = pool.soft.range(first, first + size)
        assert np.array_equal(found.classes, targets.classes) and np.array_equal(found.codes, targets.codes)
        width = pools.left + 1 + pools.right
        padded = np.pad(features, ((pools.left, pools.right), (0, 0)), constant_values=QUIET)
        for at in (0, size // 2, size - 1):
            start = pool.starts[first + at] if network == "dnn" else rows + at
            own = shared.own.start + at
            assert np.array_equal(pool.rows[start : start + width], padded[own : own + width])
        first, rows = first + size, rows + pools.left + size + pools.right
    assert first == len(pool.labels) == pools.frames and rows == len(pool.rows)


def test_shards_count_the_frames_that_are_learnt(folder, tmp_path):
    with inline_jobs():
        shar.main(shar.Config(folder / "aligned", tmp_path, splits=("train_degraded",)))
    _, pool = pool_of(folder, train_cuts=(tmp_path / "train_degraded",))
    assert len(pool.labels) == sum(pool.stream_frames)


def test_other_lengths_are_refused(folder, tmp_path):
    cut = cuts(folder / "aligned", "test_tight")[0]
    cut.custom["clean_frames"] = [cut.custom["clean_frames"][0], 190]
    stage = Stage("features", tmp_path / "features", {})
    stage.begin()
    with jsonl_writer(tmp_path / "features" / "cuts_test_tight.jsonl.gz") as add:
        add(MonoCut.to_dict(cut))
    stage.finish()
    with pytest.raises(UserError, match="has 190 frames, but 200 senones"):
        transfer.main(transfer.Config(tmp_path / "features", folder / "senones", tmp_path / "out"))
