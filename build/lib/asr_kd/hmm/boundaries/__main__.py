"""``python -m asr_kd.hmm.boundaries``: compares the phone and word boundaries of an alignment with the true ones."""

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
    for split, statistics in result.items():
        phones = statistics["phones"]
        print(
            f"{split}: phone boundaries: median absolute error {phones['median_ms']} ms, "
            f"{phones['within_percent']['30']} % within 30 ms, bias {phones['bias_ms']} ms; "
            f"{phones['coverage_percent']} % of the phones matched",
            flush=True,
        )
    stage.finish()


if __name__ == "__main__":
    run(Config, main)
