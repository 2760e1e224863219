"""Cuts of a manifest in any order."""

import pickle
from pathlib import Path

import pytest
from lhotse import CutSet, MonoCut, SupervisionSegment

from asr_kd.common.errors import UserError
from asr_kd.corpora.cuts import StoredCuts
from asr_kd.corpora.manifests import jsonl_writer, read_jsonl


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    cuts = [
        MonoCut(f"é-{number}", 0.0, 0.5 + number, 0, supervisions=[SupervisionSegment("s", "r", 0.0, 0.5, text="ÄH")])
        for number in range(3)
    ]
    CutSet.from_cuts(cuts).to_file(tmp_path / "cuts_test.jsonl.gz")
    return tmp_path / "cuts_test.jsonl.gz"


def test_any_order(manifest: Path) -> None:
    cuts, stored = list(CutSet.from_file(manifest)), StoredCuts(manifest)
    assert len(stored) == 3 and list(stored) == cuts
    assert [stored[number] for number in (2, 0, 2)] == [cuts[2], cuts[0], cuts[2]]
    with pytest.raises(IndexError):
        stored[3]
    with pytest.raises(TypeError):  # processes get cuts, not files that only this one has open
        pickle.dumps(stored)


def test_a_damaged_cut_is_named_when_it_is_asked_for(manifest: Path) -> None:
    lines = list(read_jsonl(manifest))
    del lines[1]["duration"]
    with jsonl_writer(manifest) as add:
        for line in lines:
            add(line)
    stored = StoredCuts(manifest)
    assert stored[2].id == "é-2"
    with pytest.raises(UserError, match=r"cuts_test.jsonl.gz is damaged .*duration"):
        stored[1]
