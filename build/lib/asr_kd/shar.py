"""``python -m asr_kd.shar``: the short name of ``asr_kd.corpora.shar``."""

from asr_kd.common.cli import run
from asr_kd.corpora.shar.__main__ import main
from asr_kd.corpora.shar.config import Config

if __name__ == "__main__":
    run(Config, main)
