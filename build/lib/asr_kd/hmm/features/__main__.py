"""``python -m asr_kd.hmm.features``: computes the features of GMMs, adapted to speakers, for networks."""

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage
from asr_kd.hmm.features.config import Config


def main(config: Config) -> None:
    stage = Stage(
        "features", config.out, config, [config.gmm, config.adapted, config.features], elsewhere=["storage/*"]
    )
    if not stage.begin():
        return
    from asr_kd.hmm.features.extract import extract

    stage.finish(**extract(config))


if __name__ == "__main__":
    run(Config, main)
