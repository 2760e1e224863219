"""Subsets of the training split."""

from __future__ import annotations

import pytest
from training import inline_jobs

from asr_kd.common.errors import UserError
from asr_kd.corpora.manifests import read_jsonl
from asr_kd.corpora.subset import __main__ as subset
from asr_kd.features import __main__ as features

TRAIN = "cuts_train.jsonl.gz"


def ids(path):
    return [cut["id"] for cut in read_jsonl(path)]


@pytest.fixture(scope="module")
def perturbed(prepared, tmp_path_factory):
    """Features with copies at another speed."""
    out = tmp_path_factory.mktemp("perturbed") / "features"
    with inline_jobs():
        features.main(features.Config(prepared.data, out, speed_perturb=(0.9,)))
    return out


def test_a_smaller_share_is_contained_in_a_larger_one(perturbed, tmp_path):
    subsets = []
    for share in (0.25, 0.5, 1.0):
        out = tmp_path / str(share)
        subset.main(subset.Config(perturbed, out, share=share))
        subsets.append(ids(out / TRAIN))
        assert {name.removesuffix("_sp0.9") + "_sp0.9" for name in subsets[-1]} <= set(subsets[-1])
        assert ids(out / "cuts_dev.jsonl.gz") == ids(perturbed / "cuts_dev.jsonl.gz")
    full = ids(perturbed / TRAIN)
    assert [len(names) for names in subsets] == [len(full) // 4, len(full) // 2, len(full)]
    assert set(subsets[0]) < set(subsets[1]) < set(subsets[2]) == set(full)


def test_copies_may_be_left_out(perturbed, tmp_path):
    subset.main(subset.Config(perturbed, tmp_path / "out", share=0.5, copies=False))
    subset.main(subset.Config(perturbed, tmp_path / "both", share=0.5))
    kept, both = ids(tmp_path / "out" / TRAIN), ids(tmp_path / "both" / TRAIN)
    assert kept == [name for name in both if not name.endswith("_sp0.9")]
    assert 2 * len(kept) == len(both)


def test_groups_of_speakers_are_disjoint_and_complete(perturbed, tmp_path):
    halves = []
    for group in ("1/2", "2/2"):
        subset.main(subset.Config(perturbed, tmp_path / group[0], speakers=group))
        halves.append(ids(tmp_path / group[0] / TRAIN))
    speakers = [{name.partition("-")[0] for name in half} for half in halves]
    assert not speakers[0] & speakers[1]
    assert sorted(halves[0] + halves[1]) == sorted(ids(perturbed / TRAIN))


@pytest.mark.parametrize(
    ("flags", "message"), [({"share": 0.0}, "above 0"), ({"share": 0.01}, "none"), ({"speakers": "3/2"}, "no group")]
)
def test_empty_subsets_are_refused(prepared, tmp_path, flags, message):
    with pytest.raises(UserError, match=message):
        subset.main(subset.Config(prepared.features, tmp_path / "out", **flags))
