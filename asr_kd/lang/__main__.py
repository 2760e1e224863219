"""Stage ``python -m asr_kd.lang``: lexicon, language model, L and G."""

from __future__ import annotations

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage
from asr_kd.lang.config import Config


def main(config: Config) -> None:
    inputs = [config.data, *config.lm_text, *(p for p in (config.lexicon, config.arpa) if p)]
    stage = Stage("lang", config.out, config, inputs)
    if stage.begin():
        from asr_kd.lang.build import build

        stage.finish(**build(config))


if __name__ == "__main__":
    run(Config, main)
