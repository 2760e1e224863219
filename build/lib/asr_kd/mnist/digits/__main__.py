"""``python -m asr_kd.mnist.digits``: writes MNIST's four files to a folder."""

from asr_kd.common.cli import run
from asr_kd.common.storage import atomic_open
from asr_kd.mnist.digits.config import Config
from asr_kd.mnist.digits.dataset import FILES, find_files, is_intact


def main(config: Config) -> None:
    """Write the files, unless they are complete and intact."""
    if all(is_intact(config.out / name) for name in FILES):
        print(f"digits: up to date ({config.out})")
        return
    for name, content in find_files(config.data).items():
        with atomic_open(config.out / name, "wb") as file:
            file.write(content)
    print(f"digits: 60,000 training and 10,000 test images in {config.out}")


if __name__ == "__main__":
    run(Config, main)
