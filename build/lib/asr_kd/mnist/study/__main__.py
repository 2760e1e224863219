"""``python -m asr_kd.mnist.study``: trains all networks of the MNIST study."""

from asr_kd.common.cli import run
from asr_kd.common.parallel import run_stages
from asr_kd.mnist.study.config import Config
from asr_kd.mnist.study.networks import phases


def main(config: Config) -> None:
    """Train the teachers, then the students."""
    for title, networks in phases(config):
        stages = [(network.stage(), network) for network in networks]
        todo = [(stage, network) for stage, network in stages if stage.begin()]
        if not todo:
            continue
        from asr_kd.mnist.training import train_network

        with config.executor(len(stages)) as executor:
            run_stages(executor, train_network, todo, title, "network")


if __name__ == "__main__":
    run(Config, main)
