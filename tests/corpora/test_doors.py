"""Corpora of every kind (trees, Kaldi folders, Lhotse manifests, tables), with what is wrong in them."""

from __future__ import annotations

import json
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from lhotse import AudioSource, CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.cut import MonoCut, MultiCut

from asr_kd.common.errors import UserError
from asr_kd.corpora.__main__ import main
from asr_kd.corpora.config import Config
from asr_kd.corpora.parts import Options, Part
from asr_kd.corpora.splits import write_split
from asr_kd.corpora.utterances import Utterance, checked


def audio(path: Path, seconds: float = 1.0, rate: int = 16000, channels: int = 1) -> Path:
    """Write noise whose level tells its channel; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels)) / (1 + np.arange(channels))
    kind = {"format": "OGG", "subtype": "OPUS"} if path.suffix == ".opus" else {}
    soundfile.write(path, samples, rate, **kind)
    return path


def prepare(out: Path, spec: str | Path, **options: object) -> tuple[dict[str, MonoCut], dict[str, str]]:
    """The cuts of a split with one part, and the reasons of what is skipped."""
    parts = [Part.parse(Path(), str(spec))]
    with ThreadPoolExecutor(1) as executor:
        write_split(out, "dev", parts, Options(**options), executor)  # type: ignore[arg-type]
    lines = (out / "skipped_dev.tsv").read_text().splitlines()
    return {cut.id: cut for cut in CutSet.from_file(out / "cuts_dev.jsonl.gz")}, dict(
        line.split("\t") for line in lines
    )


def summary(cuts: dict[str, MonoCut]) -> dict[str, tuple[float, float, int, str | None, str | None]]:
    return {
        name: (cut.start, cut.duration, cut.channel, cut.supervisions[0].speaker, cut.supervisions[0].text)
        for name, cut in cuts.items()
    }


# Trees


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
def test_trees_have_audio_of_any_kind_at_any_depth(tmp_path: Path, rate: int) -> None:
    names = {"é #1=x": "flac", "b": "wav", "c-1-2-3": "mp3", "d": "ogg", "e": "opus", "F": "WAV"}
    names = {name.replace(" ", ""): ending for name, ending in names.items()}
    for depth, (name, ending) in enumerate(names.items()):
        audio(tmp_path / "part" / f"speaker-{depth % 2}" / "/".join("xyz"[: depth % 4]) / f"{name}.{ending}", 1.0, rate)
    lines = "".join(f"{name} HELLO\n" for name in names)
    (tmp_path / "part" / "any.trans.txt").write_text("\ufeff" + lines.replace("\n", "\r\n"))
    cuts, skipped = prepare(tmp_path / "out", tmp_path / "part")
    assert not skipped and cuts.keys() == names.keys()
    for depth, name in enumerate(names):
        assert cuts[name].supervisions[0].speaker == f"speaker-{depth % 2}"
        assert cuts[name].sampling_rate == rate and abs(cuts[name].duration - 1) < 0.15
        samples = cuts[name].load_audio()[0]
        assert len(samples) == cuts[name].num_samples and samples.std() == pytest.approx(
            0.1, rel=0.4
        )  # coders lose some of the noise


def test_linked_speakers_belong_to_a_tree(tmp_path: Path) -> None:
    """Whoever splits speakers by hand links them; a link back to the tree is no other tree."""
    audio(tmp_path / "all" / "s" / "1" / "a.wav")
    (tmp_path / "all" / "s" / "1" / "x.trans.txt").write_text("a A\n")
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "anna").symlink_to(tmp_path / "all" / "s")
    (tmp_path / "all" / "s" / "loop").symlink_to(tmp_path / "part")
    cuts, skipped = prepare(tmp_path / "out", tmp_path / "part")
    assert not skipped and [cut.supervisions[0].speaker for cut in cuts.values()] == ["anna"]


def test_faults_of_trees(tmp_path: Path) -> None:
    part = tmp_path / "part"
    for name in ("1/a.wav", "1/b.wav", "2/b.flac", "c.wav", "2/d.wav", "2/e.wav", "2/ok.wav"):
        audio(part / name)
    (part / "x.trans.txt").write_text("a A\nb B\nc C\nd D\nd DD\nok OK\nf F\n")
    whole = (part / "1/a.wav").read_bytes()
    (part / "1/a.wav").write_bytes(whole[:8000])
    cuts, skipped = prepare(tmp_path / "out", part)
    assert list(cuts) == ["ok"]
    expected = {
        "a": "truncated", "b": "two recordings", "c": "no speaker", "d": "two transcripts",
        "e": "audio without a transcript", "f": "transcript without audio",
    }  # fmt: skip
    assert skipped.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in skipped[name]


def test_names_that_are_not_utf8_are_listed(tmp_path: Path) -> None:
    audio(tmp_path / "part" / "1" / "a.wav").rename(tmp_path / "part" / "1" / "b\udcff.wav")
    audio(tmp_path / "part" / "1" / "a.wav")
    (tmp_path / "part" / "t.trans.txt").write_text("a A\n")
    cuts, skipped = prepare(tmp_path / "out", tmp_path / "part")
    assert list(cuts) == ["a"] and "\\udcff" in min(skipped)


# What holds for all kinds


def test_duplicates_overlaps_and_impossible_segments() -> None:
    def segment(name: str, start: float, end: float | None, speaker: str = "s", channel: int = 0) -> Utterance:
        return Utterance(name, "TEXT", speaker, Path("a.wav"), "a", start, end, channel)

    utterances = [
        segment("a", 0, 2), segment("b", 1.5, 3), segment("c", 1, 2, "other"), segment("d", 1, 2, channel=1),
        segment("e", 2.5, 4), segment("e", 8, 9), segment("f", 3.995, 5), segment("g", 5, 5), segment("h", 7, 6),
        segment("i", float("nan"), 6), segment("j", -1, 0), segment("k", 10, None), segment("l", 20, 21),
        segment("", 30, 31), segment("x" * 201, 30, 31), segment("tab\t", 30, 31), Utterance("m", "TEXT", "s"),
        Utterance("n", "TEXT", None, Path("a.wav")), Utterance("o", " \t", "s", Path("a.wav")),
        Utterance("p", None, "s", Path("a.wav")), Utterance("q", fault="as the corpus says"),
        Utterance("r", "lost \ufffd", "s", Path("a.wav")), Utterance("t", "A", "s", Path("a.wav"), "\ud800"),
    ]  # fmt: skip
    faults = {utterance.id + "2" * (index == 5): utterance.fault for index, utterance in enumerate(checked(utterances))}
    assert [name for name, fault in faults.items() if not fault] == ["a", "c", "d", "e", "f", "k"]
    assert "overlaps with a of the same speaker" in faults["b"] and "overlaps with k" in faults["l"]
    assert "twice" in faults["e2"] and "no segment: from 7 to 6 s" in faults["h"]
    for name in "gij":
        assert "no segment" in faults[name]
    assert "empty or longer" in faults[""] and "longer than 200" in faults["x" * 201] and "control" in faults["tab\t"]
    expected = {"m": "without audio", "n": "no speaker", "o": "empty transcript", "p": "without a transcript"}
    for name, reason in (
        expected | {"q": "as the corpus says", "r": "the character U+FFFD", "t": "its recording has control"}
    ).items():
        assert reason in faults[name]


def test_memory_does_not_grow_with_the_length_of_recordings(tmp_path: Path) -> None:
    rate, hours = 16000, 8
    size = 2 * rate * 3600 * hours
    with open(tmp_path / "long.wav", "wb") as file:  # sparse: nothing but its header takes space
        header = struct.pack("<4sI8sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVEfmt ", 16, 1, 1, rate, 2 * rate, 2, 16, b"data", size)  # fmt: skip # noqa: E501
        file.write(header)
        file.truncate(len(header) + size)
    (tmp_path / "wav.scp").write_text("long long.wav\n")
    (tmp_path / "segments").write_text(f"a long 1 3\nb long {hours * 3600 - 2} -1\n")
    (tmp_path / "text").write_text("a A\nb B\n")
    (tmp_path / "utt2spk").write_text("a s\nb s\n")
    prepare(tmp_path / "out", tmp_path)  # imports
    tracemalloc.start()
    cuts, _ = prepare(tmp_path / "out", tmp_path)
    assert [cut.load_audio().shape for cut in cuts.values()] == [(1, 2 * rate), (1, 2 * rate)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6


# Kaldi


def kaldi(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return folder


def test_kaldi_folders_with_and_without_segments(tmp_path: Path) -> None:
    audio(tmp_path / "whole" / "a.wav", 1.00005, 8000)
    audio(tmp_path / "b.wav", 1.5)
    whole = kaldi(
        tmp_path / "whole", wav_scp=f"a a.wav\nb {tmp_path / 'b.wav'}\n", text="a ONE\nb TWO  WORDS\n",
        utt2spk="a x-1\nb y\n",
    )  # fmt: skip
    cuts, skipped = prepare(tmp_path / "out", whole)
    assert not skipped
    assert summary(cuts) == {"a": (0, 1.0, 0, "x-1", "ONE"), "b": (0, 1.5, 0, "y", "TWO WORDS")}
    assert cuts["a"].sampling_rate == 8000
    audio(tmp_path / "parts" / "long.flac", 10)
    parts = kaldi(
        tmp_path / "parts", wav_scp="long long.flac\nlost lost.wav\n",
        segments="a long 0 2.5\nb long 3 -1\nc long 4 5\nd long 8 10.5\ne long 11 12\nf lost 0 1\ng none 0 1\n"
        "h long x 2\ni long 1\nj long 2.51 2.99\nk long 2.6 2.7\nl long 9.9 10.005\n",
        text="".join(f"{name} TEXT\n" for name in "abdefghiklm") + "c\n",
        utt2spk="".join(f"{name} {'yxz'[name in 'cd' or 2 * (name == 'l')]}\n" for name in "abcdefghijlm"),
    )  # fmt: skip
    cuts, skipped = prepare(tmp_path / "out", parts)
    assert summary(cuts) == {
        "a": (0, 2.5, 0, "y", "TEXT"), "b": (3, 7, 0, "y", "TEXT"), "l": (9.9, 0.1, 0, "z", "TEXT"),
    }  # fmt: skip
    expected = {
        "c": "empty transcript", "d": "ends at 10.5 s, its recording at 10 s", "e": "overlaps",
        "f": "lost.wav is missing", "g": "its recording none is not in wav.scp", "h": "its line in segments",
        "i": "its line in segments", "j": "audio without a transcript", "k": "no speaker",
        "m": "not in segments",
    }  # fmt: skip
    assert skipped.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in skipped[name]
    assert cuts["b"].load_audio().shape == (1, 7 * 16000)


def test_kaldi_pipes_are_refused_and_never_run(tmp_path: Path) -> None:
    command = f"touch {tmp_path / 'ran'}; cat a.wav |"
    folder = kaldi(tmp_path / "data", wav_scp=f"a a.wav\nb {command}\n", text="a A\n", utt2spk="a a\n")
    with pytest.raises(UserError, match=r"the audio of b is to come from a command \(touch.*write its output to a WAV"):
        prepare(tmp_path / "out", folder)
    assert not (tmp_path / "ran").exists()
    (folder / "text").unlink()
    (folder / "wav.scp").write_text("a a.wav\n")
    with pytest.raises(UserError, match="text cannot be read"):
        prepare(tmp_path / "out", folder)


# Lhotse


def recording(path: Path, name: str = "rec", channels: int = 1, seconds: float = 10) -> Recording:
    return Recording.from_file(audio(path, seconds, channels=channels), recording_id=name)


def test_cuts_within_long_recordings_and_on_channels(tmp_path: Path) -> None:
    mono, stereo = recording(tmp_path / "mono.wav"), recording(tmp_path / "stereo.wav", "two", 2)
    apart = Recording(
        "apart", [AudioSource("file", [n], str(audio(tmp_path / f"{n}.wav", 10))) for n in (0, 3)], 16000, 160000, 10
    )

    def spoken(name: str, start: float, seconds: float, channel: int | list[int] = 0) -> SupervisionSegment:
        return SupervisionSegment(name, "rec", start, seconds, channel, f"Text of {name}", speaker="s")

    cuts = [
        MonoCut("one", 1.0, 3.0, 0, [spoken("inner", 0.5, 1)], recording=mono),
        MonoCut("several", 4.0, 6.0, 0, [spoken("first", 0, 2), spoken("second", 3, 2)], recording=mono),
        MonoCut("right", 0.0, 1.0, 1, [spoken("r", 0, 1, 1)], recording=stereo),
        MonoCut("far", 0.0, 1.0, 3, [spoken("f", 0, 1, 3)], recording=apart),
        MultiCut("both", 2.0, 1.0, [0, 1], [spoken("b", 0, 1, [0, 1])], recording=stereo),
        MultiCut("each", 4.0, 2.0, [0, 1], [spoken("left", 0, 1, 0), spoken("right2", 0, 1, 1)], recording=stereo),
        MonoCut("silent", 0.0, 1.0, 0, [], recording=mono),
        MonoCut("fast", 0.0, 1.0, 0, [spoken("x", 0, 1)], recording=mono).perturb_speed(1.1),
        MonoCut("low", 8.5, 1.0, 0, [spoken("y", 0, 1)], recording=stereo).resample(8000),
    ]
    CutSet.from_cuts([*cuts, cuts[0].pad(5)]).to_file(tmp_path / "cuts.jsonl")
    found, skipped = prepare(tmp_path / "out", tmp_path / "cuts.jsonl")
    assert {name: (cut.start, cut.duration, cut.channel) for name, cut in found.items()} == {
        "one": (1.0, 3.0, 0), "first": (4.0, 2.0, 0), "second": (7.0, 2.0, 0), "right": (0.0, 1.0, 1),
        "far": (0.0, 1.0, 0), "left": (4.0, 1.0, 0), "right2": (4.0, 1.0, 1), "low": (8.5, 1.0, 0),
    }  # fmt: skip
    assert found["low"].sampling_rate == 16000 and found["right"].supervisions[0].id == "right"
    assert found["right"].load_audio().std() < 0.06 < found["left"].load_audio().std()
    assert "channels 0, 1: name one with --channel" in skipped["both"]
    assert "without a transcript" in skipped["silent"] and "Speed" in skipped["fast_sp1.1"]
    assert len(skipped) == 4
    found, skipped = prepare(tmp_path / "out", tmp_path / "cuts.jsonl", channel=1)
    assert sorted(found) == ["both", "right", "right2"] and "not on channel 1" in skipped["left"]


def test_recordings_and_supervisions(tmp_path: Path) -> None:
    recordings = [recording(tmp_path / f"{name}.wav", name) for name in ("a", "b", "c")]
    spoken = [
        SupervisionSegment("a1", "a", 1, 2, 0, "A", speaker="s"),
        SupervisionSegment("b1", "b", 0, 10, 0, "B", speaker="s"),
        SupervisionSegment("z1", "z", 0, 1, 0, "Z", speaker="s"),
    ]
    folder = tmp_path / "manifests"
    folder.mkdir()
    RecordingSet.from_recordings(recordings).to_file(folder / "x_recordings_all.jsonl.gz")
    SupervisionSet.from_segments(spoken).to_file(folder / "x_supervisions_all.jsonl.gz")
    for spec in (folder, folder / "x_recordings_all.jsonl.gz"):
        cuts, skipped = prepare(tmp_path / "out", spec)
        assert summary(cuts) == {"a1": (1, 2, 0, "s", "A"), "b1": (0, 10, 0, "s", "B")}
        assert "without a transcript" in skipped["c"] and "its recording z is not in" in skipped["z1"]
    RecordingSet.from_recordings(recordings).to_file(folder / "y_recordings_all.jsonl.gz")
    with pytest.raises(UserError, match=r"several manifests of recordings \(x_recordings_all.*name one of these files"):
        prepare(tmp_path / "out", folder)
    with pytest.raises(UserError, match=r"has no y_supervisions_all\.jsonl\.gz beside it"):
        prepare(tmp_path / "out", folder / "y_recordings_all.jsonl.gz")


def test_recordings_from_commands_and_addresses_are_refused(tmp_path: Path) -> None:
    for kind, source in (("command", f"touch {tmp_path / 'ran'}"), ("url", "http://127.0.0.1:9/a.wav")):
        bad = Recording("strange", [AudioSource(kind, [0], source)], 16000, 16000, 1.0)
        spoken = SupervisionSegment("u", "strange", 0, 1, 0, "TEXT", speaker="s")
        path = tmp_path / f"{kind}.jsonl.gz"
        CutSet.from_cuts([MonoCut("u", 0.0, 1.0, 0, [spoken], recording=bad)]).to_file(path)
        with pytest.raises(
            UserError, match=rf"the recording strange is to come from a {kind}.*write its audio to a file"
        ):
            prepare(tmp_path / "out", path)
    assert not (tmp_path / "ran").exists()


def test_damaged_manifests_are_named(tmp_path: Path) -> None:
    cut = MonoCut(
        "u", 0.0, 1.0, 0, [SupervisionSegment("u", "r", 0, 1, 0, "T")], recording=recording(tmp_path / "a.wav")
    )
    wrong = [cut.to_dict() for _ in range(6)]
    wrong[0]["start"] = "soon"
    wrong[1]["supervisions"][0]["text"] = 5
    wrong[2]["recording"].pop("sources")
    wrong[3]["type"] = "HalfCut"
    wrong[4]["start"] = 10**400
    wrong[5]["recording"]["sampling_rate"] = 0
    for content in (*map(json.dumps, wrong), '{"id":', "[]", "5"):
        (tmp_path / "cuts.jsonl").write_text(content + "\n")
        with pytest.raises(UserError, match=r"cuts.jsonl is damaged \(.*correct it, or make it again"):
            prepare(tmp_path / "out", tmp_path / "cuts.jsonl")


# Tables


def test_tables_of_common_voice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        audio(tmp_path / "clips" / f"{name}.mp3", 1, 32000)
    audio(tmp_path / "sub" / "c.wav")
    (tmp_path / "train.tsv").write_text(
        'client_id\tpath\tsentence\tup_votes\nx1\ta.mp3\tShe said "hi.\t2\nx2\tb.mp3\t\t1\n\tsub/c.wav\tNo one.\t1\n'
        "x3\tlost.mp3\tWhere?\t1\nx4\t\tNo path.\t1\nx5\tshort.mp3\n"
    )
    cuts, _ = prepare(tmp_path / "out", tmp_path / "train.tsv", unknown_speakers="recording")
    assert cuts["sub/c"].supervisions[0].speaker == "sub/c"
    cuts, skipped = prepare(tmp_path / "out", tmp_path / "train.tsv")
    assert summary(cuts)["a"][3:] == ("x1", 'She said "hi.')
    assert list(cuts) == ["a"] and cuts["a"].sampling_rate == 32000
    assert skipped == {
        "b": "empty transcript", "sub/c": skipped["sub/c"], "": skipped[""], "short": "audio without a transcript",
        "lost": f"transcript without audio: {tmp_path / 'lost.mp3'} is missing",
    }  # fmt: skip


def test_tables_with_other_columns(tmp_path: Path) -> None:
    audio(tmp_path / "sounds" / "x" / "a.b.wav")
    (tmp_path / "t.csv").write_text('file;words;who\nx/a.b.wav;"one; ""two""";me\n')
    with pytest.raises(UserError, match=r"no column 'path', only file, words, who.*--path-column"):
        prepare(tmp_path / "out", tmp_path / "t.csv")
    columns = {"path_column": "file", "text_column": "words", "speaker_column": "who"}
    cuts, _ = prepare(tmp_path / "out", tmp_path / "t.csv", audio_dir=tmp_path / "sounds", **columns)
    assert summary(cuts) == {"x/a.b": (0, 1, 0, "me", 'one; "two"')}
    (tmp_path / "t.csv").write_text("path,sentence,client_id\n" + "x" * 200_000 + ",a,b\n")
    with pytest.raises(UserError, match=r"is no table .*export it again"):
        prepare(tmp_path / "out", tmp_path / "t.csv")


def test_channels_of_files_are_named(tmp_path: Path) -> None:
    audio(tmp_path / "part" / "s" / "a.wav", channels=2)
    audio(tmp_path / "part" / "s" / "b.wav")
    (tmp_path / "part" / "t.trans.txt").write_text("a A\nb B\n")
    cuts, skipped = prepare(tmp_path / "out", tmp_path / "part")
    assert list(cuts) == ["b"] and "2 channels: name one with --channel" in skipped["a"]
    cuts, skipped = prepare(tmp_path / "out", tmp_path / "part", channel=1)
    assert cuts["a"].channel == 1 and "no channel 1" in skipped["b"]


def test_the_stage_takes_each_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for speaker in "xyz":
        audio(tmp_path / "root" / "tree" / speaker / f"{speaker}.wav")
    (tmp_path / "root" / "tree" / "t.trans.txt").write_text("x X\ny Y\nz Z\n")
    kaldi(tmp_path / "root" / "kaldi", wav_scp="x ../tree/x/x.wav\n", text="x X\n", utt2spk="x k\n")
    (tmp_path / "more.tsv").write_text(f"path\tsentence\tclient_id\n{tmp_path}/root/tree/y/y.wav\tY\ty\n")
    config = Config(
        tmp_path / "out", corpus_dir=tmp_path / "root", train=("tree:1/2",), dev=("tree:2/2",), test=("kaldi",),
        also=(tmp_path / "more.tsv",), jobs=1,
    )  # fmt: skip
    main(config)
    assert {split: len(list(CutSet.from_file(tmp_path / "out" / f"cuts_{split}.jsonl.gz"))) for split in
            ("train", "dev", "test", "more")} == {"train": 2, "dev": 1, "test": 1, "more": 1}  # fmt: skip
    main(config)
    assert "up to date" in capsys.readouterr().out
    with (tmp_path / "more.tsv").open("a") as file:
        file.write("lost.wav\tA\ty\n")
    main(config)
    assert "outdated" in capsys.readouterr().out
    with pytest.raises(UserError, match="there already is a test set named more"):
        main(replace(config, also=(tmp_path / "more.tsv",) * 2))
