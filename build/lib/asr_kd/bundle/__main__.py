"""``python -m asr_kd.bundle``: makes a bundle of a network and its graph."""

from asr_kd.bundle.config import Config
from asr_kd.common.cli import run
from asr_kd.common.storage import Stage


def main(config: Config) -> None:
    inputs = [config.model, config.graph, config.features, *([config.tuned] if config.tuned else [])]
    stage = Stage("bundle", config.out, config, inputs)
    if not stage.begin():
        return
    from asr_kd.bundle.build import build

    figures = build(config)
    stage.finish(**figures)
    print(f"{config.out}: python -m asr_kd.runtime {config.out} FILE...", flush=True)


if __name__ == "__main__":
    run(Config, main)
