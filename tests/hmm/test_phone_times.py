"""Senones from phones with times: CTM files and TextGrids."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet, Features, MonoCut, NumpyFilesWriter, SupervisionSegment
from praatio import textgrid

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.hmm.import_alignments.__main__ import main
from asr_kd.hmm.import_alignments.config import Config

#: Utterance: (phone, start, end) in seconds; each has 60 frames.
TIMES = {
    "u0": [("sil", 0.0, 0.12), ("AA1_B", 0.12, 0.3), ("T_E", 0.3, 0.36), ("SIL", 0.36, 0.6)],
    "u1": [("T", 0.1, 0.25), ("T", 0.25, 0.31), ("5", 0.31, 0.602)],  # the pause before is not written
}
PHONES = ["SIL", "5", "AA1", "T"]


@pytest.fixture
def features(tmp_path) -> Path:
    """Two utterances of their own recordings, and one that is a part of a longer one."""
    folder = tmp_path / "features"
    with NumpyFilesWriter(folder / "storage") as writer:
        for split in ("train", "dev"):
            cuts = []
            for name, recording, start in (("u0", "u0", 0.0), ("u1", "u1", 0.0), ("part", "long", 10.0)):
                key = writer.write(f"{split}-{name}", np.zeros((60, 4), np.float32))
                stored = Features(
                    type="x", num_frames=60, num_features=4, frame_shift=0.01, sampling_rate=16000, start=start,
                    duration=0.6, storage_type=writer.name, storage_path=str(folder / "storage"), storage_key=key,
                    recording_id=recording, channels=0,
                )  # fmt: skip
                text = SupervisionSegment(name, recording, 0.0, 0.6, text="A")
                cuts.append(MonoCut(name, start, 0.6, 0, supervisions=[text], features=stored))
            CutSet.from_cuts(cuts).to_file(folder / f"cuts_{split}.jsonl.gz")
    return folder


def write_ctm(path: Path, times: dict) -> Path:
    lines = [f"{name} 1 {a:.3f} {b - a:.3f} {phone} 0.9\n" for name, rows in times.items() for phone, a, b in rows]
    with gzip.open(path, "wt") if path.suffix == ".gz" else open(path, "w") as file:
        file.write(";; a comment\n" + "".join(reversed(lines)))  # in any order
    return path


def write_textgrid(path: Path, rows: list, tier: str = "phones", form: str = "long_textgrid") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    grid = textgrid.Textgrid()
    for name in ("words", tier):
        spans = [(a, b, phone) for phone, a, b in rows]
        grid.addTier(textgrid.IntervalTier(name, spans, 0, max(0.6, rows[-1][2])))
    grid.save(str(path), form, includeBlankSpaces=True)
    return path


def run(features, tmp_path, **flags) -> dict:
    """Import, and return the senones of the cuts of train."""
    main(Config(features=features, out=tmp_path / "out", jobs=1, **flags))
    return {cut.id: cut for cut in CutSet.from_file(tmp_path / "out" / "cuts_train.jsonl.gz")}


def classes(cuts: dict, name: str) -> list[str]:
    return [PHONES[i] for i in cuts[name].load_custom("senones")]


LONG = {"long": [("T", 9.0, 10.2), ("AA1", 10.2, 10.5), ("sp", 10.5, 12.0)]}


def test_a_ctm_labels_every_frame(features, tmp_path):
    ctm = (write_ctm(tmp_path / "a.ctm", TIMES), write_ctm(tmp_path / "b.ctm.gz", LONG))
    cuts = run(features, tmp_path, ctm=ctm)
    assert classes(cuts, "u0") == ["SIL"] * 12 + ["AA1"] * 18 + ["T"] * 6 + ["SIL"] * 24
    assert classes(cuts, "u1") == ["SIL"] * 10 + ["T"] * 21 + ["5"] * 29
    assert classes(cuts, "part") == ["T"] * 20 + ["AA1"] * 30 + ["SIL"] * 10  # by its place in the recording
    items = [(item.symbol, item.start) for item in cuts["u1"].supervisions[0].alignment["phone"]]
    assert items == [("SIL", 0.0), ("T", 0.1), ("T", 0.25), ("5", 0.31)]
    described = read_json(tmp_path / "out" / "hmm.json")
    assert (described["num_pdfs"], described["silence_pdfs"], described["phones"]) == (4, [0], PHONES)
    assert described["senones"]


@pytest.mark.parametrize("form", ["long_textgrid", "short_textgrid"])
def test_textgrids_give_the_same_labels(features, tmp_path, form):
    for name, rows in TIMES.items():
        write_textgrid(tmp_path / "grids" / "speaker" / f"{name}.TextGrid", rows, "anna - phones", form)
    cuts = run(features, tmp_path, textgrids=(tmp_path / "grids",))
    assert classes(cuts, "u0") == ["SIL"] * 12 + ["AA1"] * 18 + ["T"] * 6 + ["SIL"] * 24
    assert classes(cuts, "u1") == ["SIL"] * 10 + ["T"] * 21 + ["5"] * 29
    listed = (tmp_path / "out" / "skipped_train.tsv").read_text()
    assert listed == "part\tthere are no phones of this utterance\n"


def test_thirds_of_phones(features, tmp_path):
    cuts = run(features, tmp_path, ctm=(write_ctm(tmp_path / "a.ctm", TIMES),), thirds=True)
    senones = cuts["u0"].load_custom("senones")
    silence, vowel, consonant = np.repeat([0, 1, 2], 4), np.repeat([6, 7, 8], 6), np.repeat([9, 10, 11], 2)
    assert senones[:36].tolist() == [*silence, *vowel, *consonant]
    assert read_json(tmp_path / "out" / "hmm.json")["silence_pdfs"] == [0, 1, 2]


def test_phones_of_different_inventories_are_different_senones(features, tmp_path):
    known = set()
    for number, times in enumerate((TIMES, TIMES | {"u1": TIMES["u0"]}, TIMES)):
        run(features, tmp_path / str(number), ctm=(write_ctm(tmp_path / f"{number}.ctm", times),))
        known.add(read_json(tmp_path / str(number) / "out" / "hmm.json")["senones"])
    assert len(known) == 2


def test_utterances_with_bad_phones_are_skipped_and_listed(features, tmp_path):
    long = [("T", 0.0, 0.7)]
    overlapping = [("T", 0.0, 0.3), ("5", 0.2, 0.5)]
    cuts = run(features, tmp_path, ctm=(write_ctm(tmp_path / "a.ctm", TIMES | {"u0": long, "part": overlapping}),))
    assert set(cuts) == {"u1"}
    assert (tmp_path / "out" / "skipped_train.tsv").read_text() == (
        "u0\tits phones end at 0.70 s, and its recording at 0.60 s\npart\tits phones overlap at 0.20 s\n"
    )


def test_textgrids_that_cannot_be_read_are_listed(features, tmp_path):
    write_textgrid(tmp_path / "grids" / "u0.TextGrid", TIMES["u0"])
    write_textgrid(tmp_path / "grids" / "u1.TextGrid", TIMES["u1"], "segments")
    (tmp_path / "grids" / "part.TextGrid").write_text("nonsense\n")
    run(features, tmp_path, textgrids=(tmp_path / "grids",))
    listed = dict(line.split("\t") for line in (tmp_path / "out" / "skipped_train.tsv").read_text().splitlines())
    assert listed["u1"] == "its TextGrid has 0 tiers phones, of: words, segments"
    assert "part.TextGrid cannot be read" in listed["part"]


@pytest.mark.parametrize(
    "line", ["u0 1 0.0 0.5", "u0 1 zero 0.5 T", "u0 1 0.0 -0.5 T", "u0 1 -1 0.5 T", "u0 1 0.0 inf T", "u0 1 nan 1 T"]
)
def test_a_line_that_is_not_of_a_ctm_is_named(features, tmp_path, line):
    (tmp_path / "a.ctm").write_text(f"u0 1 0 0.1 T\n{line}\n")
    with pytest.raises(UserError, match=r"a.ctm, line 2 is no line of a CTM .ID CHANNEL START DURATION PHONE"):
        run(features, tmp_path, ctm=(tmp_path / "a.ctm",))


def test_flags_and_files_that_do_not_fit_are_named(features, tmp_path):
    ctm = write_ctm(tmp_path / "a.ctm", TIMES)
    (tmp_path / "empty.ctm").write_text("")
    (tmp_path / "nothing").mkdir()
    lang = tmp_path / "lang"
    lang.mkdir()
    (lang / "units.json").write_text(
        json.dumps({"kind": "phone", "text": "upper", "guesses": True, "positions": False})
    )
    (lang / "phones.txt").write_text("<eps> 0\nSIL 1\nSPN 2\nT 3\n#0 4\n")
    (lang / "words.txt").write_text("<eps> 0\n<UNK> 1\n#0 2\n<s> 3\n</s> 4\n")
    for flags, message in (
        ({}, "give the alignments in one form: --ark, --ctm or --textgrids"),
        ({"ctm": (ctm,), "ark": (ctm,)}, "give the alignments in one form"),
        ({"ark": (ctm,), "thirds": True}, "--thirds and --lang are for phones with times"),
        ({"ctm": (ctm,), "silence_pdfs": (0,)}, "--silence-pdfs are for --ark: leave them out"),
        ({"ctm": (tmp_path / "empty.ctm",)}, "no file has phones: check --ctm, --textgrids and --tier"),
        ({"textgrids": (tmp_path / "nothing",)}, "there are no .TextGrid files in"),
        ({"ctm": (ctm,), "lang": lang}, "2 phones are not in the lexicon of .*, such as 5, AA1: make it with the"),
    ):
        with pytest.raises(UserError, match=message):
            run(features, tmp_path, **flags)
