"""``python -m asr_kd.mnist.study``: trains all networks of the MNIST study."""

from __future__ import annotations

from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_stages
from asr_kd.mnist.stage import stage_of
from asr_kd.mnist.study.config import Config


def main(config: Config) -> None:
    """Train wave after wave: teachers first."""
    if config.seeds < 1 or not set(config.parts) <= set(range(1, 6)):
        raise UserError("--seeds must be positive and --parts some of 1 to 5: correct the flag")
    from asr_kd.mnist.study.networks import waves

    for title, networks in waves(config):
        stages = [(stage_of(network), network) for network in networks]
        todo = [(stage, network) for stage, network in stages if stage.begin()]
        if not todo:
            continue
        from asr_kd.mnist.training import train_network

        with config.executor(len(stages)) as executor:
            run_stages(executor, train_network, todo, title, "network")


if __name__ == "__main__":
    from asr_kd.common.cli import run

    run(Config, main)
