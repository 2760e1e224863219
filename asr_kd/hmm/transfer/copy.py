"""``python -m asr_kd.hmm.transfer``: the senones of one alignment for the same utterances in other features."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import clean_id
from asr_kd.corpora.manifests import Skipped, jsonl_writer, read_jsonl, require_some, write_skipped
from asr_kd.hmm.transfer.config import Config


def _row(cut: Mapping[str, Any]) -> tuple[str, str, str]:
    return cut["id"], *(json.dumps(v) for v in (cut["supervisions"][0].get("alignment"), cut["custom"]["senones"]))


def _transfer(split: str, config: Config, aligned: sqlite3.Connection) -> dict[str, int]:
    """Write the cuts of one split that ``aligned`` has the alignment and the senones of; returns how many."""
    skipped: list[Skipped] = []
    found = frames = 0
    with jsonl_writer(config.out / f"cuts_{split}.jsonl.gz") as add:
        for cut in read_jsonl(config.features / f"cuts_{split}.jsonl.gz"):
            query = "select alignment, senones from aligned where id = ?"
            if (known := aligned.execute(query, [clean_id(cut)]).fetchone()) is None:
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
    write_skipped(config.out, split, skipped)
    require_some(found, skipped, split, config.out)
    print(f"{split}: {found} utterances, {len(skipped)} skipped")
    return {"utterances": found, "skipped": len(skipped), "frames": frames}
