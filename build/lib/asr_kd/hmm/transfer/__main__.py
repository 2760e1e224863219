"""``python -m asr_kd.hmm.transfer``: copies the senones of an alignment to the cuts of other features."""

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage, copy_file, read_json, write_json
from asr_kd.hmm.transfer.config import Config


def main(config: Config) -> None:
    stage = Stage("transfer", config.out, config, [config.features, config.cuts], elsewhere=["senones/*"])
    if not stage.begin():
        return
    from asr_kd.hmm.transfer.copy_senones import copy_senones

    counts = copy_senones(config.features, config.cuts, config.out)
    copy_file(config.cuts / "pdf_counts.npy", config.out / "pdf_counts.npy")
    write_json(config.out / "hmm.json", {**read_json(config.cuts / "hmm.json"), "splits": counts})
    stage.finish(splits=counts)


if __name__ == "__main__":
    run(Config, main)
