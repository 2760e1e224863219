"""Copying of senones between cuts of the same utterances with different features."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lhotse import NumpyFilesWriter
from lhotse.array import TemporalArray

from asr_kd.common.checksums import array_checksum
from asr_kd.common.errors import UserError
from asr_kd.common.files import UNREADABLE
from asr_kd.common.storage import read_json
from asr_kd.corpora.copies import CLEAN_FRAMES, clean_id, shared_frames
from asr_kd.corpora.cuts import checksum_field, splits_of, storage_key
from asr_kd.corpora.manifests import Skipped, jsonl_writer, read_jsonl, require_utterances, write_skipped
from asr_kd.features.front_end import FRAME_SHIFT


def copy_senones(features: Path, aligned: Path, out: Path) -> dict[str, dict[str, int]]:
    """Write the cuts in ``features`` with the senones and alignments of those in ``aligned``.

    Returns:
        the figures of each split: "utterances", "skipped", "frames".

    Raises:
        UserError: an utterance has different numbers of frames in the two folders, or no utterance of a split has
            an alignment.
    """
    cuts = (cut for split in splits_of(aligned) for cut in read_jsonl(aligned / f"cuts_{split}.jsonl.gz"))
    silence = read_json(aligned / "hmm.json").get("silence_pdfs", [])
    with contextlib.closing(sqlite3.connect("")) as table:  # an empty name: a temporary file
        table.execute("create table aligned (id text primary key, alignment text, senones text)")
        table.executemany("insert or replace into aligned values (?, ?, ?)", map(_row, cuts))
        return {split: _copy_split(split, features, aligned, out, table, silence) for split in splits_of(features)}


def _row(cut: Mapping[str, Any]) -> tuple[str, str, str]:
    fields = ("senones", checksum_field("senones"))
    senones = {name: cut["custom"][name] for name in fields if name in cut["custom"]}
    return cut["id"], *(json.dumps(v) for v in (cut["supervisions"][0].get("alignment"), senones))


def _copy_split(
    split: str, features: Path, aligned: Path, out: Path, table: sqlite3.Connection, silence: Sequence[int]
) -> dict[str, int]:
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
            if (total := shared_frames(cut, length).total) != labelled:
                raise UserError(
                    f"{cut['id']} has {total} frames, but {labelled} senones: give an alignment of the same recordings"
                )
            if CLEAN_FRAMES in (cut.get("custom") or {}):
                alignment, senones = _moved(cut, alignment, senones, out.resolve() / "senones" / split, silence)
            if alignment:
                cut["supervisions"][0]["alignment"] = alignment
            append({**cut, "custom": {**(cut.get("custom") or {}), **senones}})
            utterances, frames = utterances + 1, frames + length
    write_skipped(out, split, skipped)
    require_utterances(utterances, skipped, split, out)
    print(f"{split}: {utterances:,} utterances with senones, {len(skipped):,} skipped", flush=True)
    return {"utterances": utterances, "skipped": len(skipped), "frames": frames}


def _moved(
    cut: Mapping[str, Any], alignment: Mapping[str, Any] | None, senones: Mapping[str, Any], folder: Path,
    silence: Sequence[int],
) -> tuple[dict[str, Any], dict[str, Any]]:  # fmt: skip
    """The times and the stored senones of a copy that begins and ends elsewhere than the clean cut.

    Args:
        silence: senones of silence, of which one fills margins where the clean cut begins or ends with another sound.
    """
    length = cut["features"]["num_frames"]
    shared = shared_frames(cut, length)
    clean = _load(cut["id"], senones)[shared.clean]
    around = (shared.own.start, length - shared.own.stop)
    own = np.pad(clean, around, "edge")
    margins = np.ones(length, bool)
    margins[shared.own] = False
    if len(silence):
        own[margins & ~np.isin(own, silence)] = silence[0]
    array = NumpyFilesWriter(folder).store_array(
        storage_key(cut["id"]), own, frame_shift=FRAME_SHIFT, temporal_dim=0, start=cut["start"]
    )
    first = (shared.clean.start - shared.own.start) * FRAME_SHIFT
    moved = {kind: list(_moved_items(items, first, cut["duration"])) for kind, items in (alignment or {}).items()}
    return moved, {"senones": array.to_dict(), checksum_field("senones"): array_checksum(own)}


def _load(name: str, senones: Mapping[str, Any]) -> np.ndarray:
    try:
        array: np.ndarray = TemporalArray.from_dict(senones["senones"]).load()
    except UNREADABLE as error:
        raise UserError(f"the senones of {name} cannot be read ({error}): run the alignment again") from None
    expected = senones.get(checksum_field("senones"))
    if expected is not None and array_checksum(array) != expected:
        raise UserError(f"the senones of {name} have changed since they were written: run the alignment again")
    return array


def _moved_items(items: Sequence[Sequence[Any]], first: float, duration: float) -> Iterator[list[Any]]:
    """What is said in a copy that begins ``first`` seconds later than the clean cut and lasts ``duration`` seconds."""
    for symbol, start, length, *more in items:
        begin, end = max(start - first, 0.0), min(start + length - first, duration)
        if end > begin:
            yield [symbol, round(begin, 3), round(end - begin, 4), *more]
