"""A few speakers of AN4 through three doors: the same senones.  The whole of AN4: tools/check_doors.py."""

import os
import sys
from pathlib import Path

import pytest
from training import inline_jobs

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from check_doors import Config, digest, main

AN4 = Path(os.environ.get("ASR_KD_SPEECH", Path(__file__).parents[3] / "shared" / "speech")) / "an4"


def test_each_door_gives_the_same_senones(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    if not AN4.is_dir():
        pytest.skip(f"no {AN4}: set ASR_KD_SPEECH")
    config = Config(
        AN4 / "LibriSpeech", tmp_path, train=("train:1/30",), dev=("test:1/10",), test=("test:2/10",),
        lexicon=AN4 / "etc" / "an4.dic", arpa=AN4 / "etc" / "an4.lm",
    )  # fmt: skip
    with inline_jobs():
        main(config)
    assert "tree, kaldi, lhotse: the same" in capfd.readouterr().out
    assert len([name for name in digest(tmp_path / "lhotse") if name.startswith("gmm/senones")]) > 40
