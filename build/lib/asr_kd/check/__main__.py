"""``python -m asr_kd.check EXP``: verifies every file of an experiment."""

import sys

from asr_kd.check.config import Config
from asr_kd.common.cli import run


def main(config: Config) -> None:
    from asr_kd.check.experiment import Check

    check = Check(config.exp)
    check.run()
    print(check.report(), flush=True)
    if check.faults:
        sys.exit(1)


if __name__ == "__main__":
    run(Config, main)
