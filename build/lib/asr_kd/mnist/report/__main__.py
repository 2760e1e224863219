"""``python -m asr_kd.mnist.report``: reports the MNIST study."""

import dataclasses

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage, write_json
from asr_kd.mnist.report.config import Config
from asr_kd.mnist.study.networks import trained_seeds


def main(config: Config) -> None:
    trained = [seed for folder in sorted(config.networks.glob("*")) for seed in trained_seeds(folder)]
    unfinished = len(list(config.networks.glob("*/seed-*"))) - len(trained)
    if unfinished:
        print(f"{unfinished} networks are unfinished and left out: run the study again to finish them")
    stage = Stage("mnist report", config.out, {"command": config.command}, trained)
    if not stage.begin():
        return
    from asr_kd.mnist.digits.dataset import load_digits
    from asr_kd.mnist.report.figures import drawings
    from asr_kd.mnist.report.results import collect
    from asr_kd.mnist.report.tables import TITLE, sections
    from asr_kd.report.sections import write_report

    train, test = load_digits(config.data)
    results = collect(config.networks, train, test)
    write_json(config.out / "results.json", dataclasses.asdict(results) | {"gap_closed": results.gap_closed})
    tables = [section for section in sections(results) if section.table and section.table.rows]
    write_report(config.out, TITLE, tables, drawings(config.networks, results, train, test), config.command)
    stage.finish(networks=len(results.networks))


if __name__ == "__main__":
    run(Config, main)
