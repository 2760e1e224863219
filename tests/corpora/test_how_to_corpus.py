"""The commands of docs/how-to-corpus.md, run on small corpora that are where the page says."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet
from lhotse.bin import lhotse as lhotse_command
from pages import fenced
from training import inline_jobs

from asr_kd.common.cli import parse
from asr_kd.corpora.__main__ import main
from asr_kd.corpora.config import Config

ROOT = Path(__file__).parents[2]
COMMANDS = [
    command
    for block in fenced("how-to-corpus.md", "bash")
    for line in block.replace("\\\n", " ").splitlines()
    for command in line.split("&&")
]


def audio(path: Path, rate: int = 16000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, rate // 2), rate)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with corpora in its folder data."""
    root = tmp_path_factory.mktemp("how-to")
    data = root / "data"
    for part, speaker in itertools.product(("train", "test"), ("anna", "ben")):
        audio(data / "tree" / part / speaker / "monday" / f"{speaker}-{part}.wav")
        (data / "tree" / part / speaker / "monday" / "x.trans.txt").write_text(f"{speaker}-{part} Hello.\n")
    (data / "lhotse").mkdir()
    (data / "voices").mkdir()
    for split in ("train", "dev", "test"):
        path = audio(data / "kaldi" / split / "a.flac")
        for name, content in (("wav.scp", f"a {path}"), ("text", "a Hello."), ("utt2spk", "a anna")):
            (path.parent / name).write_text(content + "\n")
        recording = Recording.from_file(path)
        spoken = SupervisionSegment("a1", "a", 0.1, 0.3, 0, "Hello.", speaker="anna")
        cut = recording.to_cut()
        cut.supervisions = [spoken]
        CutSet.from_cuts([cut]).to_file(data / "lhotse" / f"cuts_{split}.jsonl.gz")
        RecordingSet.from_recordings([recording]).to_file(data / "lhotse" / f"x_recordings_{split}.jsonl.gz")
        SupervisionSet.from_segments([spoken]).to_file(data / "lhotse" / f"x_supervisions_{split}.jsonl.gz")
        audio(data / "voices" / "clips" / f"{split}.mp3", 32000)
        (data / "voices" / f"{split}.tsv").write_text(f"client_id\tpath\tsentence\nanna\t{split}.mp3\tHello.\n")
    audio(data / "calls" / "1.wav", 8000)
    audio(data / "calls" / "2.wav", 8000)
    (data / "calls.csv").write_text("file,words,caller\n1.wav,Hello.,anna\n2.wav,Hello.,ben\n")
    for bits in range(60):
        audio(data / "waves_yesno" / ("_".join(f"{bits:08b}") + ".wav"), 8000)
    return root


@pytest.mark.parametrize("command", COMMANDS)
def test_command(command: str, place: Path) -> None:
    words = [
        f"{place}/{word.lstrip('/')}" if word.startswith(("/data", "exp/")) else word for word in shlex.split(command)
    ]
    if words[:3] == ["python", "-m", "asr_kd.corpora"]:
        config = parse(Config, words[3:])
        if config.corpus_dir and not config.corpus_dir.exists():
            assert config.corpus_dir.name == "ami-sdm"  # a download of gigabytes
            return
        with inline_jobs():
            main(config)
        for split in ("train", "dev", "test"):
            cuts = list(CutSet.from_file(config.out / f"cuts_{split}.jsonl.gz"))
            assert cuts and all(cut.load_audio().any() for cut in cuts)
            assert not (config.out / f"skipped_{split}.tsv").read_text()
    elif words[:3] == ["lhotse", "prepare", "yesno"]:
        assert CliRunner().invoke(lhotse_command.cli, words[1:], catch_exceptions=False).exit_code == 0
    elif words[0] == "lhotse":  # nothing to read without a download: the command and its flags exist
        flags = [word for word in words if word.startswith("--")]
        known = CliRunner().invoke(lhotse_command.cli, [*words[1:3], "--help"]).output
        assert all(flag in known for flag in flags) and words[2] in known
    else:
        assert words[:2] == ["bash", "recipes/librispeech/run.sh"]
        done = subprocess.run(words, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (place / "exp" / "mine" / "data" / "cuts_test.jsonl.gz").is_file()
