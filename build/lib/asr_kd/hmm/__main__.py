"""``python -m asr_kd.hmm``: trains GMM-HMMs on features and transcripts and aligns one senone with each frame."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.hmm.config import Config


def main(config: Config) -> None:
    if 0 < config.gaussians < config.leaves:
        raise UserError(f"--gaussians {config.gaussians} is fewer than --leaves {config.leaves}: raise it")
    stage = Stage("hmm", config.out, config, [config.features, config.lang], elsewhere=["senones/*"])
    if not stage.begin():
        return
    from asr_kd.hmm.pipeline import train_and_align

    stage.finish(**train_and_align(config))


if __name__ == "__main__":
    run(Config, main)
