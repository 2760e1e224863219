"""``python -m asr_kd.features``: computes the features of a prepared corpus, and statistics to normalise them."""

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage
from asr_kd.features.config import Config


def main(config: Config) -> None:
    settings = [] if config.extractor is None else [config.extractor]
    if settings:  # a folder that is outdated is not removed for settings that are wrong
        from asr_kd.features.extractors import make_front_end

        make_front_end(config)
    if config.degrade:
        from asr_kd.features.degrade import check_conditions

        check_conditions(config.degrade)
    stage = Stage("features", config.out, config, [config.data, *settings], elsewhere=["storage/*"])
    if not stage.begin():
        return
    from asr_kd.features.extraction import extract_corpus

    with config.executor() as executor:
        stage.finish(**extract_corpus(config, executor))


if __name__ == "__main__":
    run(Config, main)
