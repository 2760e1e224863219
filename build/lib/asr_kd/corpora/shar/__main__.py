"""``python -m asr_kd.corpora.shar``: writes aligned cuts as Lhotse Shar, tar shards to train from."""

from asr_kd.common.cli import run
from asr_kd.common.storage import MARK, Stage, copy_file
from asr_kd.corpora.shar.config import Config


def main(config: Config) -> None:
    stage = Stage("shar", config.out, config, [config.cuts], elsewhere=["*/*.tar"])
    if not stage.begin():
        return
    from asr_kd.corpora.shar.shards import write_split

    with config.executor() as executor:
        figures = {split: write_split(config, split, executor) for split in config.splits}
    for path in config.cuts.iterdir():
        if path.is_file() and path.name != MARK and not path.name.startswith("cuts_"):
            copy_file(path, config.out / path.name)
    stage.finish(**figures)


if __name__ == "__main__":
    run(Config, main)
