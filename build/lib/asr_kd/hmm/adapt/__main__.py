"""``python -m asr_kd.hmm.adapt``: adapts GMMs to speakers by the words that were recognised."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.hmm.adapt.config import Config


def main(config: Config) -> None:
    if not (config.gmm / "si.mdl").is_file():
        raise UserError(f"{config.gmm} has no si.mdl: train the GMMs without --no-sat")
    stage = Stage("adapt", config.out, config, [config.gmm, config.decoded, config.lang, config.features])
    if not stage.begin():
        return
    from asr_kd.hmm.adapt.transforms import adapt

    stage.finish(**adapt(config))


if __name__ == "__main__":
    run(Config, main)
