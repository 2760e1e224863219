"""``python -m asr_kd.hmm.boundaries``: compares the phone and word boundaries of an alignment with the true ones."""

from __future__ import annotations

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage, write_json
from asr_kd.hmm.boundaries.config import Config


def main(config: Config) -> None:
    truths = [config.truth / f"truth_{split}.jsonl.gz" for split in config.splits]
    stage = Stage("boundaries", config.out, config, [config.cuts, *truths])
    if not stage.begin():
        return
    from asr_kd.hmm.boundaries.compare import compare_split

    result = {split: compare_split(config.cuts, config.truth, config.out, split) for split in config.splits}
    write_json(config.out / "boundaries.json", result)
    for split, one in result.items():
        phones = one["phones"]
        print(
            f"{split}: median |error| {phones['median_ms']} ms, within 30 ms {phones['within_percent']['30']} %, "
            f"bias {phones['bias_ms']} ms, {phones['coverage_percent']} % of phones matched"
        )
    stage.finish()


if __name__ == "__main__":
    run(Config, main)
