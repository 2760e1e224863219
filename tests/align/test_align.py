"""Alignment of recordings: where words and phones are, what is written, wrong transcripts, strange recordings."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("kaldi_hmm_gmm")
import soundfile
from praatio.textgrid import openTextgrid
from scipy.signal import lfilter, resample_poly
from training import inline_jobs

from asr_kd.align import aligner
from asr_kd.align.__main__ import main
from asr_kd.align.config import Config
from asr_kd.align.recordings import find_pairs
from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json, write_json
from asr_kd.corpora import __main__ as corpora
from asr_kd.features.__main__ import main as make_features
from asr_kd.features.config import Config as FeaturesConfig
from asr_kd.hmm.__main__ import main as make_hmm
from asr_kd.hmm.config import Config as HmmConfig
from asr_kd.lang.__main__ import main as make_lang
from asr_kd.lang.config import Config as LangConfig

RATE = 16000
PHONES = ["AA", "B", "IY", "K", "S", "T"]
WORDS = {"BAT": "B AA T", "KEY": "K IY", "SEA": "S IY", "TEA": "T IY", "ASK": "AA S K", "BEAST": "B IY S T"}
Spans = list[tuple[str, float, float]]


def sound(phone: str, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Noise whose resonance tells the phone; silence is faint."""
    noise = rng.standard_normal(int(RATE * seconds))
    if phone == "SIL":
        return 0.001 * noise
    pole = 0.97 * np.exp(2j * np.pi * (0.03 + 0.06 * PHONES.index(phone)))
    return 0.02 * lfilter([1.0], [1.0, -2 * pole.real, abs(pole) ** 2], noise)


def speak(words: list[str], rng: np.random.Generator) -> tuple[np.ndarray, Spans, Spans]:
    """Samples of words, and the times of words and phones."""
    pieces, spans, phones, now = [sound("SIL", 0.3, rng)], [], [], 0.3
    for word in words:
        begin = now
        for phone in WORDS[word].split():
            seconds = float(rng.integers(8, 15)) / 100
            pieces.append(sound(phone, seconds, rng))
            phones.append((phone, now, now + seconds))
            now += seconds
        spans.append((word, begin, now))
        if rng.random() < 0.3:
            pieces.append(sound("SIL", 0.2, rng))
            now += 0.2
    return np.concatenate([*pieces, sound("SIL", 0.3, rng)]), spans, phones


def sentence(rng: np.random.Generator, count: int = 5) -> list[str]:
    return [str(word) for word in rng.choice(list(WORDS), count)]


@dataclass(frozen=True)
class Models:
    """Folders that an alignment needs."""

    gmm: Path
    lang: Path
    features: Path


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    """GMMs of six phones, trained on 40 sentences."""
    root, rng = tmp_path_factory.mktemp("models"), np.random.default_rng(0)
    for part, speakers in (("train-x", 10), ("dev-x", 1)):
        for speaker in range(speakers):
            chapter = root / "corpus" / part / f"{speaker + 100 * (part == 'dev-x')}" / "1"
            chapter.mkdir(parents=True)
            lines = []
            for number in range(4):
                words = sentence(rng)
                name = f"{chapter.parent.name}-1-{number:04d}"
                soundfile.write(chapter / f"{name}.flac", speak(words, rng)[0], RATE)
                lines.append(f"{name} {' '.join(words)}\n")
            (chapter / f"{chapter.parent.name}-1.trans.txt").write_text("".join(lines))
    (root / "lexicon.txt").write_text("".join(f"{word} {phones}\n" for word, phones in WORDS.items()))
    found = Models(root / "gmm", root / "lang", root / "features")
    with inline_jobs():
        data = corpora.Config(
            root / "data", corpus_dir=root / "corpus", train=("train-x",), dev=("dev-x",), test=("dev-x",)
        )
        corpora.main(data)
        make_features(FeaturesConfig(root / "data", found.features))
        make_lang(LangConfig(data=root / "data", out=found.lang, lexicon=root / "lexicon.txt"))
        make_hmm(HmmConfig(features=found.features, lang=found.lang, out=found.gmm, leaves=30, gaussians=60,
                           mono_gaussians=40, min_leaf_frames=20, transform="delta", sat=False))  # fmt: skip
    return found


@pytest.fixture
def align(models: Models, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Runs the command; returns its exit status, lines of output and errors."""

    def run(*recordings: Path, **flags: Any) -> tuple[int, list[list[str]], str]:
        given = {"model": (models.gmm,), "lang": models.lang, "features": models.features, "out": tmp_path / "out"}
        capsys.readouterr()
        with inline_jobs(), pytest.raises(SystemExit) as status:
            main(Config(**{**given, **flags}, recordings=recordings))
        printed = capsys.readouterr()
        return int(status.value.code or 0), [line.split("\t") for line in printed.out.splitlines()], printed.err

    return run


def errors(found: Spans, expected: Spans) -> np.ndarray:
    assert [label for label, *_ in found] == [label for label, *_ in expected]
    return np.abs(np.array([times for _, *times in found]) - np.array([times for _, *times in expected]))


def read_ctm(path: Path) -> dict[str, Spans]:
    rows: dict[str, Spans] = {}
    for name, channel, begin, length, label, score in (line.split() for line in path.read_text().splitlines()):
        assert channel == "1" and 0 <= float(score) <= 1
        rows.setdefault(name, []).append((label, float(begin), float(begin) + float(length)))
    return rows


def test_words_phones_and_senones_are_found(align: Callable[..., Any], models: Models, tmp_path: Path) -> None:
    """In a folder of pairs, at any rate and of any format, with transcripts as people write them."""
    rng, truth = np.random.default_rng(5), {}
    (tmp_path / "in/deep").mkdir(parents=True)
    for name in ("one", "deep/a two"):
        words = sentence(rng, 6)
        samples, *truth[name] = speak(words, rng)
        if name == "one":
            soundfile.write(tmp_path / "in/one.wav", samples, RATE)
            (tmp_path / "in/one.txt").write_text(" ".join(words))
        else:
            other = resample_poly(samples, 441, 320)
            soundfile.write(tmp_path / "in/deep/a two.flac", np.stack([other, other], 1), 22050)
            (tmp_path / "in/deep/a two.lab").write_text("«" + ",\n".join(words).lower() + "!» —\n")
    status, lines, _ = align(tmp_path / "in")
    assert status == 0 and [line[0].split("/")[-1] for line in lines] == ["a two.flac", "one.wav"]
    assert all(float(line[1]) > 0.3 and line[2] == "" for line in lines)
    tables = [read_ctm(tmp_path / f"out/{tier}.ctm") for tier in ("words", "phones", "senones")]
    assert (tmp_path / "out/guessed.tsv").read_text() == ""
    for name, (words, phones) in truth.items():
        described = read_json(tmp_path / f"out/{name}.json")
        grid = openTextgrid(str(tmp_path / f"out/{name}.TextGrid"), includeEmptyIntervals=False)
        assert grid.tierNames == ("words", "phones", "senones") and grid.maxTimestamp == described["seconds"]
        for tier, table in zip(grid.tierNames, tables, strict=True):
            spans = table[name.replace(" ", "\\s")]
            segments = [(s["label"], s["begin"], s["end"]) for s in described[tier]]
            for other in (segments, [(e.label, e.start, e.end) for e in grid.getTier(tier).entries]):
                assert errors(other, spans).max() < 0.001
            if tier != "words":  # without a gap
                assert all(left[2] == pytest.approx(right[1]) for left, right in itertools.pairwise(spans))
                assert (spans[0][1], spans[-1][2]) == (0, pytest.approx(described["seconds"]))
        spoken = [span for span in tables[1][name.replace(" ", "\\s")] if span[0] != "SIL"]
        for found, expected in ((tables[0][name.replace(" ", "\\s")], words), (spoken, phones)):
            assert np.median(errors(found, expected)) < 0.04 and errors(found, expected).max() < 0.1
        assert {int(s["label"]) for s in described["senones"]} <= set(
            range(read_json(models.gmm / "hmm.json")["num_pdfs"])
        )


def test_a_wrong_word_has_a_low_score(align: Callable[..., Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    words = ["BAT", "KEY", "ASK", "SEA", "BEAST", "TEA"]
    soundfile.write(tmp_path / "a.wav", speak(words, rng)[0], RATE)
    (tmp_path / "a.txt").write_text("BAT KEY BEAST SEA BEAST TEA")
    status, lines, _ = align(tmp_path / "a.wav", formats=("json",))
    assert status == 0 and lines[0][2].split()[:1] == ["BEAST"]
    scores = [word["score"] for word in read_json(tmp_path / "out/a.json")["words"]]
    assert np.argmin(scores) == 2 and min(scores[0], scores[5]) > 10 * scores[2]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "guessed.tsv"]


def test_words_that_the_lexicon_lacks_are_guessed_and_listed(align: Callable[..., Any], tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speak(["BAT", "KEY", "TEA"], np.random.default_rng(7))[0], RATE)
    (tmp_path / "text").write_text("bat kee tea")
    status, lines, complaints = align(tmp_path / "a.wav", text=tmp_path / "text")
    assert status == 0 and len(lines) == 1 and "pronunciations were guessed: see" in complaints
    rows = [line.split("\t") for line in (tmp_path / "out/guessed.tsv").read_text().splitlines()]
    assert {word for word, _ in rows} == {"KEE"}
    assert read_json(tmp_path / "out/a.json")["guessed"]["KEE"] == [phones.split() for _, phones in rows]


def test_a_long_recording_is_aligned_in_blocks(
    align: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aligner, "CHUNK_FRAMES", 500)
    rng, pieces, truth, now = np.random.default_rng(8), [], [], 0.0
    for _ in range(40):
        samples, words, _ = speak(sentence(rng), rng)
        pieces.append(samples)
        truth += [(word, begin + now, end + now) for word, begin, end in words]
        now += len(samples) / RATE
    soundfile.write(tmp_path / "long.wav", np.concatenate(pieces), RATE)
    (tmp_path / "long.txt").write_text(" ".join(word for word, *_ in truth))
    status, _, _ = align(tmp_path / "long.wav", formats=("ctm",))
    found = errors(read_ctm(tmp_path / "out/words.ctm")["long"], truth)
    assert status == 0 and now > 80, "long enough to be normalised in segments, which moves its boundaries a little"
    assert np.median(found) < 0.04 and np.median(found[-40:]) < 0.04 and found.max() < 0.2


def test_strange_recordings_end_none_of_the_others(align: Callable[..., Any], tmp_path: Path) -> None:
    samples = speak(["BAT", "KEY"], np.random.default_rng(9))[0]
    texts = {
        "alone.wav": None, "empty.wav": " —\n", "long.wav": "BAT KEY " * 200, "other.wav": "B\xe4t".encode("latin-1"),
        "good.wav": "BAT KEY", "noise.wav": "BAT", "zeros.wav": "BAT",
    }  # fmt: skip
    (tmp_path / "in").mkdir()
    for name, text in texts.items():
        soundfile.write(tmp_path / "in" / name, samples * (name != "zeros.wav"), RATE)
        if text is not None:
            (tmp_path / "in" / name).with_suffix(".txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "in/noise.wav").write_bytes(b"RIFF")
    (tmp_path / "missing.txt").write_text("BAT")
    status, lines, complaints = align(tmp_path / "in", tmp_path / "missing.wav")
    assert status == 7 and [line[0].split("/")[-1] for line in lines] == ["good.wav"]
    for sentence_of in (
        "alone.wav has no transcript: write it to alone.txt or alone.lab next to it",
        "empty.txt has no words: write what was said",
        "long.wav does not align with its 400 words: compare transcript and recording",
        "other.txt, line 1 is not UTF-8",
        "noise.wav cannot be read as audio",
        "zeros.wav",
        "missing.wav cannot be read as audio",
        "7 of 8 recordings could not be aligned",
    ):
        assert sentence_of in complaints
    assert "Traceback" not in complaints
    assert list(read_ctm(tmp_path / "out/words.ctm")) == ["good"]


def test_flags_that_do_not_fit_are_named(align: Callable[..., Any], models: Models, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    for recordings, flags, message in (
        ((), {}, "there is nothing to align: name audio files or folders"),
        ((tmp_path / "a.wav", tmp_path / "b.wav"), {"text": tmp_path / "t"}, "--text is the transcript of one"),
        ((tmp_path,), {"text": tmp_path / "t"}, "--text is the transcript of one recording"),
        ((tmp_path / "nothing",), {}, "nothing has no audio files"),
        ((tmp_path / "a.wav", tmp_path / "nothing/a.flac"), {}, "two recordings are named a, and so would be"),
        ((tmp_path / "a.wav",), {"gmm": tmp_path}, "has no hmm.json, and so no tree: give the folder of asr_kd.hmm"),
        ((tmp_path / "a.wav",), {"lang": tmp_path}, "units.json"),
    ):
        with pytest.raises(UserError, match=message):
            main(Config(model=(models.gmm,), lang=flags.pop("lang", models.lang), features=models.features,
                        out=tmp_path / "out", recordings=recordings, **flags))  # fmt: skip
    described = {**json.loads((models.features / "cmvn.json").read_text()), "settings": None}
    write_json(tmp_path / "cmvn.json", described)
    with pytest.raises(UserError, match="features that were made elsewhere"):
        main(Config(model=(models.gmm,), lang=models.lang, features=tmp_path, out=tmp_path / "out",
                    recordings=(tmp_path / "a.wav",)))  # fmt: skip


def test_pairs_keep_the_order_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("x/b.WAV", "x/a.mp3", "x/a.txt", "c.raw", "c.lab", "x/notes.txt"):
        (tmp_path / name).write_text("")
    pairs = find_pairs([tmp_path / "c.raw", tmp_path / "x"])
    assert [(pair.name, pair.text and pair.text.name) for pair in pairs] == [
        ("c", "c.lab"),
        ("a", "a.txt"),
        ("b", None),
    ]
