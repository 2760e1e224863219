"""Copying of senones between cuts of the same utterances with different features."""

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asr_kd.common.errors import UserError
from asr_kd.corpora.copies import clean_id
from asr_kd.corpora.cuts import checksum_field, splits_of
from asr_kd.corpora.manifests import Skipped, jsonl_writer, read_jsonl, require_utterances, write_skipped


def copy_senones(features: Path, aligned: Path, out: Path) -> dict[str, dict[str, int]]:
    """Write the cuts in ``features`` with the senones and alignments of those in ``aligned``.

    Returns:
        the figures of each split: "utterances", "skipped", "frames".

    Raises:
        UserError: an utterance has different numbers of frames in the two folders, or no utterance of a split has
            an alignment.
    """
    cuts = (cut for split in splits_of(aligned) for cut in read_jsonl(aligned / f"cuts_{split}.jsonl.gz"))
    with contextlib.closing(sqlite3.connect("")) as table:  # an empty name: a temporary file
        table.execute("create table aligned (id text primary key, alignment text, senones text)")
        table.executemany("insert or replace into aligned values (?, ?, ?)", map(_row, cuts))
        return {split: _copy_split(split, features, aligned, out, table) for split in splits_of(features)}


def _row(cut: Mapping[str, Any]) -> tuple[str, str, str]:
    fields = ("senones", checksum_field("senones"))
    senones = {name: cut["custom"][name] for name in fields if name in cut["custom"]}
    return cut["id"], *(json.dumps(v) for v in (cut["supervisions"][0].get("alignment"), senones))


def _copy_split(split: str, features: Path, aligned: Path, out: Path, table: sqlite3.Connection) -> dict[str, int]:
    skipped: list[Skipped] = []
    utterances = frames = 0
    with jsonl_writer(out / f"cuts_{split}.jsonl.gz") as append:
        for cut in read_jsonl(features / f"cuts_{split}.jsonl.gz"):
            query = "select alignment, senones from aligned where id = ?"
            if (row := table.execute(query, [clean_id(cut)]).fetchone()) is None:
                skipped.append((cut["id"], f"{aligned} has no alignment of this utterance"))
                continue
            alignment, senones = map(json.loads, row)
            length, labelled = cut["features"]["num_frames"], senones["senones"]["array"]["shape"][0]
            if length != labelled:
                raise UserError(
                    f"{cut['id']} has {length} frames, but {labelled} senones: give an alignment of the same recordings"
                )
            if alignment:
                cut["supervisions"][0]["alignment"] = alignment
            append({**cut, "custom": {**(cut.get("custom") or {}), **senones}})
            utterances, frames = utterances + 1, frames + length
    write_skipped(out, split, skipped)
    require_utterances(utterances, skipped, split, out)
    print(f"{split}: {utterances:,} utterances with senones, {len(skipped):,} skipped", flush=True)
    return {"utterances": utterances, "skipped": len(skipped), "frames": frames}
