"""``python -m asr_kd.features``: computes log-mel features of a prepared corpus, and their normalisation."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.features.config import Config


def main(config: Config) -> None:
    if 1 in config.speed_perturb:
        raise UserError("--speed-perturb 1 would add the recordings themselves again: leave it out")
    stage = Stage("features", config.out, config, [config.data], elsewhere=["storage/*"])
    if not stage.begin():
        return
    from asr_kd.features.extraction import extract_corpus

    with config.executor() as executor:
        stage.finish(**extract_corpus(config, executor))


if __name__ == "__main__":
    run(Config, main)
