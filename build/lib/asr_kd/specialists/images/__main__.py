"""``python -m asr_kd.specialists.images``: prepares images of many classes."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import Stage, write_json
from asr_kd.specialists.images.config import Config


def main(config: Config) -> None:
    if (config.digits is None) == (config.train is None) or (config.train is None) != (config.test is None):
        raise UserError("give either --digits, or --train and --test")
    inputs = [path for path in (config.digits, config.train, config.test) if path is not None]
    stage = Stage("images", config.out, config, inputs)
    if not stage.begin():
        return
    from asr_kd.specialists.images.dataset import DESCRIPTION, compose_digits, read_folders

    description = compose_digits(config) if config.digits is not None else read_folders(config)
    write_json(config.out / DESCRIPTION, description)
    stage.finish(classes=len(description["names"]))
    print(f"images: {len(description['names'])} classes in {config.out}")


if __name__ == "__main__":
    run(Config, main)
