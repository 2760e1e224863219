"""``python -m asr_kd.hmm.transfer``: copies senones to cuts with other features."""

from __future__ import annotations

import contextlib
import sqlite3

from asr_kd.common.cli import run
from asr_kd.common.storage import Stage, copy_file, read_json, write_json
from asr_kd.hmm.transfer.config import Config


def main(config: Config) -> None:
    stage = Stage("transfer", config.out, config, [config.features, config.cuts])
    if not stage.begin():
        return
    from asr_kd.corpora.cuts import splits_of
    from asr_kd.corpora.manifests import read_jsonl

    cuts = (cut for split in splits_of(config.cuts) for cut in read_jsonl(config.cuts / f"cuts_{split}.jsonl.gz"))
    from asr_kd.hmm.transfer.copy import _row, _transfer

    with contextlib.closing(sqlite3.connect("")) as aligned:  # no name: a temporary file
        aligned.execute("create table aligned (id text primary key, alignment text, senones text)")
        aligned.executemany("insert or replace into aligned values (?, ?, ?)", map(_row, cuts))
        counts = {split: _transfer(split, config, aligned) for split in splits_of(config.features)}
    copy_file(config.cuts / "pdf_counts.npy", config.out / "pdf_counts.npy")
    write_json(config.out / "hmm.json", {**read_json(config.cuts / "hmm.json"), "splits": counts})
    stage.finish(splits=counts)


if __name__ == "__main__":
    run(Config, main)
