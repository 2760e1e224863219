"""``python -m asr_kd.lang``: makes the lexicon, the language model, L and G."""

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage
from asr_kd.lang.config import Config


def main(config: Config) -> None:
    inputs = [config.data, *config.lm_text, *(path for path in (config.lexicon, config.arpa) if path)]
    stage = Stage("lang", config.out, config, inputs)
    if not stage.begin():
        return
    from asr_kd.lang.build import build

    stage.finish(**build(config))


if __name__ == "__main__":
    run(Config, main)
