"""``python -m asr_kd.accuracy``: the short name of ``asr_kd.score.accuracy``."""

from asr_kd.common.cli import run
from asr_kd.score.accuracy.__main__ import main
from asr_kd.score.accuracy.config import Config

if __name__ == "__main__":
    run(Config, main)
