"""``python -m asr_kd.subset``: the short name of ``asr_kd.corpora.subset``."""

from asr_kd.common.cli import run
from asr_kd.corpora.subset.__main__ import main
from asr_kd.corpora.subset.config import Config

if __name__ == "__main__":
    run(Config, main)
