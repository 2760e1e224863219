"""``python -m asr_kd.features``: computes log-mel features of a prepared corpus, and their normalisation."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.features.config import Config


def main(config: Config) -> None:
    speeds = config.speed_perturb
    if any(not 0.5 <= factor <= 2 or factor == 1 for factor in speeds) or len(set(speeds)) < len(speeds):
        given = " ".join(f"{factor:g}" for factor in speeds)
        raise UserError(f"--speed-perturb {given} is not possible: give different factors between 0.5 and 2, but not 1")
    stage = Stage("features", config.out, config, [config.data])
    if not stage.begin():
        return
    from asr_kd.features.extraction import extract_corpus

    with config.executor() as executor:
        stage.finish(**extract_corpus(config, executor))


if __name__ == "__main__":
    run(Config, main)
