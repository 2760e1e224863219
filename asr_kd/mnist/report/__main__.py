"""``python -m asr_kd.mnist.report``: reports the MNIST study."""

from __future__ import annotations

import dataclasses

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage, write_json
from asr_kd.mnist.report.config import Config
from asr_kd.mnist.stage import finished


def main(config: Config) -> None:
    trained = [seed for kind in sorted(config.networks.glob("*")) for seed in finished(kind)]
    unfinished = len(list(config.networks.glob("*/seed-*"))) - len(trained)
    if unfinished:
        print(f"{unfinished} networks are unfinished, and left out: run the study again for them")
    stage = Stage("mnist report", config.out, {"command": config.command}, trained)
    if not stage.begin():
        return
    from asr_kd.mnist.digits.read import load_digits
    from asr_kd.mnist.report.drawings import drawings
    from asr_kd.mnist.report.results import collect
    from asr_kd.report.draw import Drawing
    from asr_kd.report.sections import write_report

    train, test = load_digits(config.data)
    results = collect(config.networks, train, test)
    write_json(config.out / "results.json", dataclasses.asdict(results) | {"gap_closed": results.gap_closed})
    from asr_kd.mnist.report.tables import tables

    sections = [section for section in tables(results) if section.table.rows]
    pictures = (Drawing(*drawn, wide=True) for drawn in drawings(config.networks, results, train, test))
    from asr_kd.mnist.report.tables import TITLE

    write_report(config.out, TITLE, sections, pictures, config.command)
    stage.finish(networks=len(results.networks))


if __name__ == "__main__":
    run(Config, main)
