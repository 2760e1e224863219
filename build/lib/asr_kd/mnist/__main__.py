"""``python -m asr_kd.mnist``: trains one network on MNIST."""

from asr_kd.common.cli import run
from asr_kd.mnist.config import Config


def main(config: Config) -> None:
    stage = config.stage()
    if not stage.begin():
        return
    from asr_kd.mnist.training import train_network

    stage.finish(**train_network(config))


if __name__ == "__main__":
    run(Config, main)
