"""``python -m asr_kd.hmm.transfer``: the senones of one alignment for the same utterances in other features."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from asr_kd.cli import run
from asr_kd.copies import clean_id
from asr_kd.storage import Stage, UserError, copy_file, read_json, write_json


@dataclass
class Config:
    """Give cuts the senones of the same utterance in another alignment; noisy copies get those of the clean recording.

    The result takes the place of the folder that python -m asr_kd.hmm makes where networks are trained and measured.
    Utterances that the other alignment lacks are listed in skipped_ROLE.tsv.
    """

    features: Path
    """Folder that python -m asr_kd.features filled: its cuts get senones."""
    cuts: Path
    """Folder with cuts_ROLE.jsonl.gz that carry senones (made by asr_kd.hmm)."""
    out: Path
    """Folder for the cuts."""


def main(config: Config) -> None:
    stage = Stage("transfer", config.out, config, [config.features, config.cuts])
    if not stage.begin():
        return
    from asr_kd.corpora.manifests import read_jsonl
    from asr_kd.hmm.store import roles_of

    cuts = (cut for role in roles_of(config.cuts) for cut in read_jsonl(config.cuts / f"cuts_{role}.jsonl.gz"))
    with contextlib.closing(sqlite3.connect("")) as aligned:  # no name: a temporary file
        aligned.execute("create table aligned (id text primary key, alignment text, senones text)")
        aligned.executemany("insert or replace into aligned values (?, ?, ?)", map(_row, cuts))
        counts = {role: _transfer(role, config, aligned) for role in roles_of(config.features)}
    copy_file(config.cuts / "pdf_counts.npy", config.out / "pdf_counts.npy")
    write_json(config.out / "hmm.json", {**read_json(config.cuts / "hmm.json"), "roles": counts})
    stage.finish(roles=counts)


def _row(cut: Mapping[str, Any]) -> tuple[str, str, str]:
    return cut["id"], *(json.dumps(v) for v in (cut["supervisions"][0].get("alignment"), cut["custom"]["senones"]))


def _transfer(role: str, config: Config, aligned: sqlite3.Connection) -> dict[str, int]:
    """Write the cuts of one role that ``aligned`` has the alignment and the senones of; returns how many."""
    from asr_kd.corpora.manifests import Skipped, jsonl_writer, read_jsonl, require_some, write_skipped

    skipped: list[Skipped] = []
    found = frames = 0
    with jsonl_writer(config.out / f"cuts_{role}.jsonl.gz") as add:
        for cut in read_jsonl(config.features / f"cuts_{role}.jsonl.gz"):
            query = "select alignment, senones from aligned where id = ?"
            if (known := aligned.execute(query, [clean_id(cut["id"])]).fetchone()) is None:
                skipped.append((cut["id"], f"{config.cuts} has no alignment of it"))
                continue
            alignment, senones = map(json.loads, known)
            length, labelled = cut["features"]["num_frames"], senones["array"]["shape"][0]
            if length != labelled:
                raise UserError(
                    f"{cut['id']} has {length} frames and {labelled} senones: give an alignment of the same recordings"
                )
            if alignment:
                cut["supervisions"][0]["alignment"] = alignment
            add({**cut, "custom": {**(cut.get("custom") or {}), "senones": senones}})
            found, frames = found + 1, frames + length
    write_skipped(config.out, role, skipped)
    require_some(found, skipped, role, config.out)
    print(f"{role}: {found} utterances, {len(skipped)} skipped")
    return {"utterances": found, "skipped": len(skipped), "frames": frames}


if __name__ == "__main__":
    run(Config, main)
