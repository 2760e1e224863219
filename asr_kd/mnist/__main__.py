"""``python -m asr_kd.mnist``: train one network."""

from __future__ import annotations

from asr_kd.common.cli import run
from asr_kd.mnist.config import Config
from asr_kd.mnist.stage import stage_of


def main(config: Config) -> None:
    """Train, unless it is done already."""
    stage = stage_of(config)
    if stage.begin():
        from asr_kd.mnist.training import train_network

        stage.finish(**train_network(config))


if __name__ == "__main__":
    run(Config, main)
