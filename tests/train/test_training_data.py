"""The data that networks are trained on: noisy copies, speech without transcripts, bootstrap samples."""

import numpy as np
import pytest
from lhotse import CutSet
from training import config, inline_jobs, store_config

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.corpora.copies import clean_id
from asr_kd.features import __main__ as features
from asr_kd.hmm.transfer import __main__ as transfer
from asr_kd.models.checkpoints import load_model
from asr_kd.soft_targets import __main__ as soft_targets_stage
from asr_kd.train import __main__ as train
from asr_kd.train.loop import Trainer

TRAIN = "cuts_train.jsonl.gz"


def all_cuts(source):
    return [cut for number in range(len(source.sizes)) for cut in source.read(number)]


@pytest.fixture(scope="module")
def varied(prepared, tmp_path_factory):
    """Features with copies at another speed and with noise."""
    out = tmp_path_factory.mktemp("varied") / "features"
    with inline_jobs():
        features.main(features.Config(prepared.data, out, speed_perturb=(0.9,), babble=(20.0, 5.0)))
    return out


def test_noisy_splits_have_the_senones_of_clean_speech(prepared, varied, tmp_path):
    splits = {path.name.removeprefix("cuts_").removesuffix(".jsonl.gz") for path in varied.glob("cuts_*")}
    assert splits == {"train", "dev", "test", "train_noisy", "dev_noisy", "test_snr20", "test_snr5"}
    transfer.main(transfer.Config(varied, prepared.senones, tmp_path / "aligned"))
    noisy = list(CutSet.from_file(tmp_path / "aligned" / "cuts_train_noisy.jsonl.gz"))
    clean = {cut.id: cut for cut in CutSet.from_file(prepared.senones / TRAIN)}
    assert {clean_id(cut) for cut in noisy} == set(clean)  # copies at other speeds were not aligned there
    for cut in noisy:
        assert np.array_equal(cut.load_custom("senones"), clean[clean_id(cut)].load_custom("senones"))
    skipped = (tmp_path / "aligned" / "skipped_train.tsv").read_text().splitlines()
    assert len(skipped) == len(clean) and all("_sp0.9\t" in line for line in skipped)
    assert read_json(tmp_path / "aligned" / "hmm.json")["splits"]["train"]["utterances"] == len(clean)


def test_noisy_copies_have_the_soft_targets_of_clean_speech(inline, prepared, varied, tmp_path):
    aligned = tmp_path / "aligned"
    transfer.main(transfer.Config(varied, prepared.senones, aligned))
    here = type(prepared)(prepared.data, varied, aligned)
    train.main(config(here, tmp_path / "teachers", seeds=(0, 1), epochs=1))
    soft_targets_stage.main(store_config(here, tmp_path / "teachers", tmp_path / "store"))
    noisy = (aligned / "cuts_train_noisy.jsonl.gz",)
    student = Trainer(
        config(here, tmp_path / "student", soft_targets=tmp_path / "store", temperature=1.0, train_cuts=noisy), 0
    )
    pools = student.train_loader.pools
    assert all("_snr" in cut.id for cut in all_cuts(pools.source))
    pool = pools._read([0])
    name = clean_id(pools.source.read(0)[0])
    stored = student.soft_targets.read(name)
    assert np.array_equal(pool.soft.classes, stored.classes) and np.array_equal(pool.soft.codes, stored.codes)


def test_speech_without_transcripts_trains_students_only(prepared, store, tmp_path):
    bare = prepared.features / TRAIN  # cuts without senones
    both = (prepared.senones / TRAIN, bare)
    with pytest.raises(UserError, match="has no senones"):
        Trainer(config(prepared, tmp_path / "hard", train_cuts=both), 0)
    for name, cuts in (("both", both), ("bare", (bare,))):
        student = Trainer(config(prepared, tmp_path / name, soft_targets=store, temperature=1.0, train_cuts=cuts), 0)
        student.train_epoch()
        assert student.log[0]["dev_accuracy"] > 40
        assert (student.log[0]["train_accuracy"] == 0) == (name == "bare")


def test_what_differs_between_seeds(prepared, tmp_path):
    def learn(seed, **flags):
        """Return the utterances of an epoch, its seed, and the network after it."""
        trainer = Trainer(config(prepared, tmp_path / f"{seed}-{flags}", **flags), seed)
        seeds, epoch = [], trainer.train_loader.epoch
        trainer.train_loader.epoch = lambda number: seeds.append(number) or epoch(number)
        trainer.train_epoch()
        return [cut.id for cut in all_cuts(trainer.train_loader.pools.source)], seeds, load_model(trainer.out)

    (whole, first_order, first), (_, second_order, second) = learn(0, same_order=True), learn(1, same_order=True)
    assert first_order == second_order != learn(1)[1]
    assert any((a != b).any() for a, b in zip(first.parameters(), second.parameters(), strict=True))
    samples = [learn(seed, bootstrap=True)[0] for seed in (0, 1)]
    assert samples[0] != samples[1]
    assert all(len(sample) == len(whole) and 0.4 < len(set(sample)) / len(whole) < 0.85 for sample in samples)


def test_layers_and_width_override_the_preset(prepared, tmp_path):
    trainer = Trainer(config(prepared, tmp_path / "own", layers=3, width=24), 0)
    assert (trainer.model.layers, trainer.model.width) == (3, 24)
