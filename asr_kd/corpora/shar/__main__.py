"""``python -m asr_kd.corpora.shar``: writes aligned cuts as Lhotse Shar, tar shards to train from."""

from __future__ import annotations

from asr_kd.common.cli import run
from asr_kd.common.errors import UserError
from asr_kd.common.parallel import run_in_order
from asr_kd.common.storage import MARK, Stage, copy_file, write_json
from asr_kd.corpora.shar.config import Config


def main(config: Config) -> None:
    if config.shard_frames < 1:
        raise UserError("--shard-frames must be positive: correct the flag")
    stage = Stage("shar", config.out, config, [config.cuts])
    if not stage.begin():
        return
    from asr_kd.corpora.cuts import load_cuts

    figures = {}
    from asr_kd.corpora.shar.shards import INDEX, LEAST, _frames, _jobs, write_shard

    with config.executor() as executor:
        for split in config.splits:
            if not (config.cuts / f"cuts_{split}.jsonl.gz").is_file():
                raise UserError(f"{config.cuts} has no cuts_{split}.jsonl.gz: check --splits, or align that split")
            place = f"{config.url.rstrip('/')}/{split}" if config.url else ""
            frames = _frames(config.cuts, split)
            size = min(config.shard_frames, -(-frames // LEAST)) or config.shard_frames
            jobs = _jobs(load_cuts(config.cuts, split), config.out.resolve() / split, place, size)
            most = -(-frames // size)
            shards = list(run_in_order(executor, write_shard, jobs, f"shards of {split}", "shard", most))
            write_json(config.out / split / INDEX, {"url": place, "frames": shards})
            figures[split] = {"shards": len(shards), "frames": sum(shards)}
    for path in config.cuts.iterdir():
        if path.is_file() and path.name != MARK and not path.name.startswith("cuts_"):
            copy_file(path, config.out / path.name)
    stage.finish(**figures)


if __name__ == "__main__":
    run(Config, main)
