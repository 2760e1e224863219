"""``python -m asr_kd.mnist``: train one network."""

from asr_kd.cli import run
from asr_kd.mnist.network import Config, main

if __name__ == "__main__":
    run(Config, main)
