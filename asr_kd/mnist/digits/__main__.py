"""``python -m asr_kd.mnist.digits``: prepares the MNIST digits."""

from __future__ import annotations

from asr_kd.common.storage import atomic_open
from asr_kd.mnist.digits.config import Config


def main(config: Config) -> None:
    """Fill ``config.out``; what is there already and right is left alone."""
    from asr_kd.mnist.digits.read import FILES, _right

    if all(_right(config.out / name) for name in FILES):
        print(f"digits: up to date ({config.out})")
        return
    from asr_kd.mnist.digits.read import _contents

    for name, content in _contents(config.data).items():
        with atomic_open(config.out / name, "wb") as file:
            file.write(content)
    print(f"digits: 60,000 to train and 10,000 to test in {config.out}")


if __name__ == "__main__":
    from asr_kd.common.cli import run

    run(Config, main)
