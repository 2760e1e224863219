"""Words with times and confidences: where they are found, how confidences are calibrated, and what is printed."""

from __future__ import annotations

import itertools
import json
import math
import re
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("kaldifst")
pytest.importorskip("kaldi_hmm_gmm")
import soundfile
from decode_toy import PDFS, WORDS, spoken
from lhotse import CutSet, MonoCut, SupervisionSegment
from test_decode import config, table

from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, write_json
from asr_kd.decode import pipeline
from asr_kd.decode.__main__ import main
from asr_kd.decode.calibration import Calibration, calibration_error, fit, ranking, read_calibration, right_words
from asr_kd.decode.client import Search, SearchPool
from asr_kd.decode.confidences import Judged, judge, write_confidences, write_ctm
from asr_kd.decode.config import Config
from asr_kd.decode.lattices import Frames
from asr_kd.decode.second_pass import make_second_pass
from asr_kd.decode.times import word_times
from asr_kd.decode.worker import SearchOptions
from asr_kd.hmm.word_times import WordFinder
from asr_kd.lang.formats import ctm, cues, json_line, srt, vtt
from asr_kd.lang.words import Spoken, Words

OPTIONS = SearchOptions(beam=40, lattice_beam=8, max_active=20000, acoustic_scale=0.3, lattice=True)


def utterances(count: int, noise: float) -> list[tuple[np.ndarray, list[int], list[tuple[int, int]]]]:
    """Scores (T, C), words and their frames."""
    rng, made = np.random.default_rng(3), []
    for _ in range(count):
        words = rng.integers(1, WORDS + 1, size=rng.integers(1, 7)).tolist()
        pdfs, spans = spoken(rng, words)
        matrix = rng.normal(scale=noise, size=(len(pdfs), PDFS)).astype(np.float32)
        matrix[np.arange(len(pdfs)), pdfs] += 10
        made.append((matrix, words, spans))
    return made


@pytest.mark.parametrize("mbr", [False, True])
def test_words_are_found_where_they_are_spoken(toy: SimpleNamespace, search: Search, mbr: bool) -> None:
    made = utterances(12, 3.0)
    outcomes = make_second_pass(toy.graph, None, mbr, True)(search, [matrix for matrix, _, _ in made], OPTIONS)
    errors, right = [], 0
    for (_, words, spans), outcome in zip(made, outcomes, strict=True):
        assert outcome.hypothesis is not None
        if outcome.hypothesis.words == words:
            right += 1
            errors += np.abs(np.array(outcome.hypothesis.times) - spans).ravel().tolist()
            assert all(0 < confidence <= 1 for confidence in outcome.hypothesis.confidences)
    assert right > 8 and np.median(errors) == 0 and np.mean(errors) < 0.5 and max(errors) <= 3


def test_words_that_no_path_has_are_found_too(toy: SimpleNamespace, search: Search) -> None:
    matrix, words, spans = max(utterances(12, 2.0), key=lambda one: len(one[1]))
    (outcome,) = search([matrix], OPTIONS)
    assert outcome.hypothesis and outcome.hypothesis.lattice
    frames, finder = Frames(outcome.hypothesis.lattice), WordFinder(toy.graph)
    other = [*words[:2], words[2] % WORDS + 1, *words[3:]]
    found = word_times(finder, frames, frames.scores(1.0, 0.0), other)
    assert found[:1] == spans[:1] and found[4:] == spans[4:] and len(found) == len(words) > 4
    assert all(begin < end for begin, end in found)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(found))
    with pytest.raises(ValueError, match="its words are longer than it"):
        word_times(finder, frames, frames.scores(1.0, 0.0), words * 20)
    with pytest.raises(ValueError, match="<eps> has no pronunciation"):
        word_times(finder, frames, frames.scores(1.0, 0.0), [0])


def test_words_are_found_in_one_path_without_a_lattice(toy: SimpleNamespace) -> None:
    rng, finder = np.random.default_rng(4), WordFinder(toy.graph)
    for count in (1, 4, 7):
        words = rng.integers(1, WORDS + 1, size=count).tolist()
        pdfs, spans = spoken(rng, words)
        assert finder.in_path(pdfs.tolist(), words) == spans
    with pytest.raises(ValueError, match="its words are longer than it"):
        finder.in_path(pdfs.tolist()[:5], words)


def test_a_graph_without_pronunciations_is_named(toy: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"pronunciations.json is missing, and without .*: compile the graph again"):
        WordFinder(tmp_path)


def test_pieces_have_the_times_of_their_word(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("<eps> 0\n▁HE 1\nLLO 2\n▁YOU 3\n▁ 4\n", encoding="utf-8")
    times, sure = [(5, 9), (9, 20), (20, 21), (22, 30)], [0.9, 0.8, 0.7, 1.0]
    found = Words(tmp_path).spoken([1, 2, 4, 3], times, sure)
    assert [(w.word, round(w.begin, 2), round(w.end, 2), w.confidence) for w in found] == [
        ("HELLO", 0.05, 0.2, 0.8), ("YOU", 0.22, 0.3, 1.0),
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------- calibration


def test_confidences_become_shares_of_right_words() -> None:
    """Posteriors that are too sure, as those of lattices are: the true log-odds are 0.4 times theirs, less 0.5."""
    rng = np.random.default_rng(1)
    logits = rng.normal(3, 2, 4000)
    posteriors = 1 / (1 + np.exp(-logits))
    right = rng.random(4000) < 1 / (1 + np.exp(-(0.4 * logits - 0.5)))
    found = fit(posteriors[:2000].tolist(), right[:2000].tolist())
    assert found.slope == pytest.approx(0.4, abs=0.06) and found.offset == pytest.approx(-0.5, abs=0.15)
    held_out = posteriors[2000:].tolist(), right[2000:].tolist()
    assert calibration_error(*held_out) > 0.2 and calibration_error(found(held_out[0]), held_out[1]) < 0.04
    order = np.linspace(0.001, 0.999, 50).tolist()
    assert (np.diff(found(order)) > 0).all()


def test_words_that_do_not_suffice_leave_confidences_as_they_are() -> None:
    assert fit([0.9] * 40, [True] * 20 + [False] * 20) == Calibration()
    assert fit([0.9] * 100, [True] * 100) == Calibration()
    assert fit([0.1] * 50 + [0.9] * 50, [True] * 50 + [False] * 50) == Calibration()  # the less sure, the more right
    assert Calibration()([0.3, 1.0]) == [0.3, 1.0]
    assert calibration_error([0.75] * 4, [True, True, True, False]) == 0
    assert ranking([0.9, 0.5, 0.5, 0.1], [True, True, False, False]) == 0.875 and math.isnan(ranking([0.5], [True]))
    assert right_words(["a", "b", "c", "d"], ["a", "x", "c", "d", "d"]).count(True) == 3


def test_a_damaged_calibration_is_named(tmp_path: Path) -> None:
    assert read_calibration(None) == Calibration()
    for values in ({"slope": -1, "offset": 0}, {"slope": 1}, [1, 2], {"slope": "x", "offset": 0}):
        write_json(tmp_path / "tuned.json", {"confidence": values})
        with pytest.raises(UserError, match=r"tuned.json has a damaged calibration of confidences: tune again"):
            read_calibration(tmp_path / "tuned.json")


# ------------------------------------------------------------------------------------------------- the stage


def test_the_stage_writes_times_and_calibrates(toy: SimpleNamespace, tmp_path: Path) -> None:
    values: dict[str, Any] = {"tune_on": "dev", "scales": (0.3,), "penalties": (0.0,), "acoustic_scale": 0.3}
    with closing(SearchPool()) as searches:
        main(config(toy, tmp_path / "plain", splits=("dev",), **values), searches=searches)
        main(config(toy, tmp_path / "times", splits=("dev",), times=True, **values), searches=searches)
        tuned = tmp_path / "times/tuned.json"
        again = config(toy, tmp_path / "again", splits=("dev",), times=True, mbr=True, tuned=tuned)
        main(again, searches=searches)
    assert (tmp_path / "plain/hyp_dev.tsv").read_bytes() == (tmp_path / "times/hyp_dev.tsv").read_bytes()
    assert "confidence" not in read_json(tmp_path / "plain/tuned.json") and read_json(tuned)["confidence"]["words"] > 99
    for name in ("times", "again"):
        figures = read_json(tmp_path / name / "decode.json")["splits"]["dev"]["confidence"]
        assert 0 < figures["right"] < figures["words"]
        assert figures["error"] != figures["error_uncalibrated"]
        words: dict[str, list[list[str]]] = {}
        for line in (tmp_path / name / "words_dev.ctm").read_text().splitlines():
            words.setdefault(line.split()[0], []).append(line.split())
        hypotheses = table(tmp_path / name / "hyp_dev.tsv")
        assert {key: " ".join(row[4] for row in rows) for key, rows in words.items()} == hypotheses
        for cut in CutSet.from_file(toy.features / "cuts_dev.jsonl.gz"):
            begins, lengths, sure = np.array([[row[2], row[3], row[5]] for row in words[cut.id]], float).T
            assert (lengths > 0).all() and (np.diff(begins) >= lengths[:-1] - 1e-6).all() and (sure <= 1).all()
            assert begins[0] >= 0 and begins[-1] + lengths[-1] <= cut.duration + 1e-6
    listed = table(tmp_path / "again/confidences_dev.tsv")
    assert {key: [row[5] for row in rows] for key, rows in words.items()} == {k: v.split() for k, v in listed.items()}


def test_utterances_that_failed_have_no_words(toy: SimpleNamespace, tmp_path: Path) -> None:
    heard = {"words": [1, 2], "confidences": [0.5, 1.0], "times": [[3, 9], [9, 20]], "reason": ""}
    failed = {"words": None, "reason": "its scores are NaN"}
    write_json(tmp_path / "0.json", {"utterances": {"b": heard, "a": failed}}, sealed=True)
    given = [tmp_path / "0.json"], Words(toy.graph), Calibration()
    write_confidences(tmp_path / "sure.tsv", *given)
    write_ctm(tmp_path / "words.ctm", *given)
    assert table(tmp_path / "sure.tsv") == {"a": "", "b": "0.500 1.000"}
    assert (tmp_path / "words.ctm").read_text() == "b 1 0.03 0.06 W01 0.500\nb 1 0.09 0.11 W02 1.000\n"
    cuts = [
        MonoCut(name, 0, 1, 0, supervisions=[SupervisionSegment(name, name, 0, 1, text="W01 W03")]) for name in "ab"
    ]
    assert judge(cuts, *given[:2]) == Judged([0.5, 1.0], [True, False])


def run_files(toy: SimpleNamespace, searches: SearchPool, files: list[Path], **options: Any) -> int:
    """Decode with a large scale, without which the lattices of noise are large."""
    chosen = Config((toy.model,), toy.graph, toy.features, tuple(files), acoustic_scale=2.0, **options)
    with pytest.raises(SystemExit) as status:
        main(chosen, searches=searches)
    return int(status.value.code or 0)


def test_files_with_times(
    toy: SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "MAX_BATCH_FRAMES", 150)
    rng = np.random.default_rng(0)
    long, bad = tmp_path / "a long one.wav", tmp_path / "bad.wav"
    soundfile.write(long, rng.normal(scale=0.1, size=4 * 16000), 16000)
    bad.write_bytes(b"RIFF")
    with closing(SearchPool()) as searches:
        assert run_files(toy, searches, [long, bad], format="jsonl", times=True) == 1
        first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
        assert run_files(toy, searches, [bad, long], format="ctm") == 1
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        for form in ("srt", "vtt"):
            assert run_files(toy, searches, [long], format=form) == 0
            printed = capsys.readouterr().out
            assert run_files(toy, searches, [long, bad], format=form, out=tmp_path / "out") == 1
            assert (tmp_path / "out" / f"a long one.{form}").read_text() == printed
            assert re.findall(r"W\d\d", printed) == first["words"].split()
        assert not (tmp_path / "out/bad.srt").exists()
    assert second["times"] is None and second["error"]
    words = first["times"]
    assert [word["word"] for word in words] == first["words"].split() and len(words) > 5
    assert words[0]["begin"] < 1 and 3 < words[-1]["end"] <= 4
    assert all(left["end"] <= right["begin"] for left, right in itertools.pairwise(words))
    assert [(row[0].split("/")[-1], row[4]) for row in lines] == [("a\\slong\\sone.wav", w["word"]) for w in words]


def test_flags_that_do_not_fit_are_named(toy: SimpleNamespace, tmp_path: Path) -> None:
    for files, values, message in (
        (["a.wav", "b.wav"], {"format": "srt"}, "2 files cannot share subtitles: give --out DIR for DIR/NAME.srt"),
        (["x/a.wav", "y/a.flac"], {"format": "vtt", "out": tmp_path}, "two files are named a, and so would be"),
        (["a.wav"], {"times": True}, "--format text has no times: choose jsonl, ctm, srt or vtt"),
        (["a.wav"], {"format": "ctm", "out": tmp_path}, r"--out .but for subtitles., --tune-on and --lattices are for"),
    ):
        with pytest.raises(UserError, match=message):
            main(Config((toy.model,), toy.graph, toy.features, tuple(map(Path, files)), **values))


# --------------------------------------------------------------------------------------------------- formats


def test_subtitles_end_at_pauses_and_when_they_are_full() -> None:
    words = [Spoken("A<B", 0.5, 0.9, 1.0), Spoken("PAUSE", 1.0, 1.5, 0.5), Spoken("NEXT", 2.5, 3725.25, 0.25)]
    assert srt(words) == ("1\n00:00:00,500 --> 00:00:01,500\nA<B PAUSE\n\n2\n00:00:02,500 --> 01:02:05,250\nNEXT\n\n")
    assert vtt(words).startswith("WEBVTT\n\n00:00:00.500 --> 00:00:01.500\nA&lt;B PAUSE\n\n")
    steady = [Spoken("TWELVELETTER", 0.3 * n, 0.3 * n + 0.3, 1.0) for n in range(60)]
    texts = [block.split("\n")[2:] for block in srt(steady).strip().split("\n\n")]
    assert all(len(lines) <= 2 and all(len(line) <= 42 for line in lines) for lines in texts)
    slow = [Spoken("W", 0.7 * n, 0.7 * n + 0.6, 1.0) for n in range(30)]
    assert all(cue[-1].end - cue[0].begin <= 6 for cue in cues(slow)) and sum(map(len, cues(slow))) == 30
    assert srt([]) == "" and vtt([]) == "WEBVTT\n\n"


def test_lines_of_other_formats() -> None:
    words = [Spoken("HI", 0.1, 0.35, 0.98765)]
    assert ctm("my file", words) == "my\\sfile 1 0.10 0.25 HI 0.988\n"
    assert json.loads(json_line(Path("a"), "HI", 1.0, "", words))["times"] == [
        {"word": "HI", "begin": 0.1, "end": 0.35, "confidence": 0.988}
    ]
    assert "times" not in json.loads(json_line(Path("a"), "HI", 1.0, ""))
