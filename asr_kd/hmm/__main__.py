"""``python -m asr_kd.hmm``: trains GMM-HMMs on features and transcripts and aligns one senone with each frame."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage
from asr_kd.hmm.config import Config


def main(config: Config) -> None:
    if config.leaves < 10:
        raise UserError(f"--leaves {config.leaves} is too small: use 10 or more (600 suits two hours of speech)")
    stage = Stage("hmm", config.out, config, [config.features, config.lang])
    if not stage.begin():
        return
    from asr_kd.hmm.pipeline import train_and_align

    stage.finish(**train_and_align(config))


if __name__ == "__main__":
    run(Config, main)
