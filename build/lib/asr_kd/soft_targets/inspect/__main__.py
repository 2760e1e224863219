"""``python -m asr_kd.soft_targets.inspect``: show what a store of soft targets contains."""

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.storage import read_json
from asr_kd.soft_targets.inspect.config import Config


def main(config: Config) -> None:
    from asr_kd.soft_targets.inspect.statistics import inspect, table
    from asr_kd.soft_targets.store import SoftTargets

    if config.cuts is not None and not config.cuts.is_file():
        raise UserError(f"{config.cuts} is missing: give a cuts_SPLIT.jsonl.gz made by asr_kd.hmm")
    damaged: list[str] = []  # an error message per cut
    for temperature in read_json(config.store / "store.json")["temperatures"]:
        targets = SoftTargets(config.store, config.features, temperature)
        figures = inspect(targets, config.cuts, damaged)
        print(f"\n## T = {temperature:g}: {figures['cuts']} cuts, {figures['frames']} frames\n")
        for line in table(figures):
            print(line)
    if damaged:
        messages = sorted(set(damaged))
        raise UserError(f"{len(messages)} shards cannot be read: " + "; ".join(messages))


if __name__ == "__main__":
    run(Config, main)
