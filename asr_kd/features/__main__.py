"""``python -m asr_kd.features``: log-mel features of a prepared corpus, and their normalisation."""

from __future__ import annotations

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.features.config import Config


def main(config: Config) -> None:
    speeds = config.speed_perturb
    if any(not 0.5 <= factor <= 2 or factor == 1 for factor in speeds) or len(set(speeds)) < len(speeds):
        raise UserError(f"--speed-perturb {speeds} makes no sense: give different factors such as 0.9 1.1")
    stage = Stage("features", config.out, config, [config.data])
    if stage.begin():
        from asr_kd.features.extraction import extract_corpus

        with config.executor() as executor:
            stage.finish(**extract_corpus(config, executor))


if __name__ == "__main__":
    run(Config, main)
