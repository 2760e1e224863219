"""Copies at another speed and with noise name what they were made from, whatever their ids look like."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from lhotse import CutSet, NumpyFilesWriter
from training import inline_jobs

from asr_kd.common.storage import Stage, save_array, write_json
from asr_kd.corpora import __main__ as corpora
from asr_kd.corpora.copies import clean_id, source_id
from asr_kd.corpora.manifests import jsonl_writer, read_jsonl
from asr_kd.corpora.shar import __main__ as shar
from asr_kd.corpora.shar.shards import Shards
from asr_kd.corpora.subset import __main__ as subset
from asr_kd.features import __main__ as features
from asr_kd.hmm.align import Alignment
from asr_kd.hmm.store import attach_alignment
from asr_kd.hmm.transfer import __main__ as transfer

#: Recordings whose own ids, and whose speakers, end as those of copies do.
IDS = ("1_sp0.9-1-0_snr5", "1_sp0.9-1-1_sp0.9", "2_snr5-1-0_sp0.9_snr5", "2_snr5-1-1")
#: Of each cut: the clean cut, and the utterance as recorded.
CLEAN = {name: (name, name) for name in IDS} | {f"{name}_sp0.9": (f"{name}_sp0.9", name) for name in IDS}
NOISY = {f"{name}_snr5": sources for name, sources in CLEAN.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Features with copies in ``features``, senones of the clean ones in ``aligned``."""
    root = tmp_path_factory.mktemp("copies")
    for part in ("train", "dev", "test"):
        for number, name in enumerate(IDS):
            speaker, chapter, _ = name.split("-")
            place = root / "corpus" / part / speaker / chapter
            place.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng(number).normal(0, 0.1, 8000)
            soundfile.write(place / f"{name}.flac", noise, 16000)
            with open(place / f"{speaker}-{chapter}.trans.txt", "a") as file:
                file.write(f"{name} HELLO\n")
    splits = {part: (part,) for part in ("train", "dev", "test")}
    with inline_jobs():
        corpora.main(corpora.Config(root / "data", corpus_dir=root / "corpus", **splits))
        features.main(features.Config(root / "data", root / "features", speed_perturb=(0.9,), babble=(5.0,)))
    align(root / "features", root / "aligned")
    return root


def align(source, out):
    stage = Stage("senones", out, {}, [source])
    stage.begin()
    writer = NumpyFilesWriter(out / "senones")
    with jsonl_writer(out / "cuts_train.jsonl.gz") as add:
        for number, cut in enumerate(CutSet.from_file(source / "cuts_train.jsonl.gz")):
            add(attach_alignment(cut, Alignment(np.full(cut.num_frames, number, np.int32)), writer).to_dict())
    write_json(out / "hmm.json", {"num_pdfs": 8, "splits": {"train": {"frames": 400}}})
    save_array(out / "pdf_counts.npy", np.ones(8))
    stage.finish()


def sources(cuts):
    return {cut["id"] if isinstance(cut, dict) else cut.id: (clean_id(cut), source_id(cut)) for cut in cuts}


def test_manifests_name_the_clean_cut_and_the_recorded_utterance(folder):
    for split, expected in (("train", CLEAN), ("train_noisy", NOISY)):
        path = folder / "features" / f"cuts_{split}.jsonl.gz"
        assert sources(read_jsonl(path)) == sources(CutSet.from_file(path)) == expected


def test_recorded_cuts_have_no_fields(folder):
    recorded = [cut for cut in read_jsonl(folder / "features" / "cuts_train.jsonl.gz") if cut["id"] in IDS]
    assert len(recorded) == len(IDS) and not any(set(cut["custom"]) - {"features_crc32"} for cut in recorded)


def test_the_voices_in_the_background_are_other_speakers(folder):
    for cut in CutSet.from_file(folder / "features" / "cuts_train_noisy.jsonl.gz"):
        speaker = source_id(cut).partition("-")[0]
        assert cut.babble and not any(f"/{speaker}/" in path for path in cut.babble)


def test_subsets_keep_an_utterance_with_its_copies(folder, tmp_path):
    subset.main(subset.Config(folder / "aligned", tmp_path, share=0.5))
    kept = sources(read_jsonl(tmp_path / "cuts_train.jsonl.gz"))
    recorded = {name for name in kept if name in IDS}
    assert len(recorded) == 2 and kept == {k: v for k, v in CLEAN.items() if v[1] in recorded}


@pytest.fixture(scope="module")
def transferred(folder):
    """The senones of the clean cuts for the noisy ones."""
    transfer.main(transfer.Config(folder / "features", folder / "aligned", folder / "transferred"))
    return folder / "transferred"


def test_noisy_copies_get_the_senones_of_the_clean_cut(folder, transferred):
    clean = {cut.id: cut.load_custom("senones") for cut in CutSet.from_file(folder / "aligned" / "cuts_train.jsonl.gz")}
    noisy = list(CutSet.from_file(transferred / "cuts_train_noisy.jsonl.gz"))
    assert sources(noisy) == NOISY
    for cut in noisy:
        assert np.array_equal(cut.load_custom("senones"), clean[NOISY[cut.id][0]])


def test_shards_keep_the_fields(transferred, tmp_path):
    with inline_jobs():
        shar.main(shar.Config(transferred, tmp_path, splits=("train", "train_noisy")))
    for split, expected in (("train", CLEAN), ("train_noisy", NOISY)):
        shards = Shards(tmp_path / split)
        assert sources(cut for number in range(len(shards.sizes)) for cut in shards.read(number)) == expected
