"""Folders of cuts, with a cuts_SPLIT.jsonl.gz for each split."""

from __future__ import annotations

import json
import os
import tempfile
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from asr_kd.common.checksums import array_checksum
from asr_kd.common.errors import UserError
from asr_kd.common.files import UNREADABLE
from asr_kd.common.storage import MARK, stage_figures
from asr_kd.corpora.manifests import DAMAGED, damaged_manifest, read_manifest

if TYPE_CHECKING:
    from lhotse.cut import MonoCut

CHUNK_FRAMES = 30_000  # five minutes; constant, so that sums do not depend on the number of processes


def chunks(cuts: Iterator[MonoCut], frames: int = CHUNK_FRAMES) -> Iterator[list[MonoCut]]:
    """Groups of consecutive cuts with about ``frames`` frames each."""
    chunk: list[MonoCut] = []
    total = 0
    for cut in cuts:
        chunk.append(cut)
        total += cut.num_frames
        if total >= frames:
            yield chunk
            chunk, total = [], 0
    if chunk:
        yield chunk


def max_chunks(features: Path, split: str) -> int | None:
    """Upper bound of the number of chunks of a split, if the features stage noted its frames."""
    frames = stage_figures(features).get(split, {}).get("frames") if (features / MARK).is_file() else None
    return -(-frames // CHUNK_FRAMES) if frames else None


def splits_of(folder: Path) -> list[str]:
    """The splits of a folder of cuts, train first.

    Raises:
        UserError: the folder has no cuts.
    """
    splits = sorted(p.name[len("cuts_") : -len(".jsonl.gz")] for p in Path(folder).glob("cuts_*.jsonl.gz"))
    if not splits:
        raise UserError(f"{folder} has no cuts_SPLIT.jsonl.gz: run python -m asr_kd.features first")
    return sorted(splits, key=lambda split: split != "train")


def load_cuts(folder: Path, split: str) -> Iterator[MonoCut]:
    """The cuts of a split, read lazily (see ``open_cuts``)."""
    return open_cuts(folder / f"cuts_{split}.jsonl.gz")


def open_cuts(path: Path) -> Iterator[MonoCut]:
    """The cuts of a manifest, read lazily.

    Raises:
        UserError: the manifest is missing or damaged, or has changed since its stage finished.
    """
    from lhotse.serialization import deserialize_item

    return read_manifest(path, deserialize_item)


class StoredCuts(Sequence["MonoCut"]):
    """The cuts of a manifest in any order, each made of a line in a temporary file (in TMPDIR) when it is asked for.

    A cut takes 8 bytes of memory.

    Raises:
        UserError: as ``open_cuts``; for a damaged cut, when it is asked for.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, tempfile.TemporaryFile()  # noqa: SIM115 - open as long as this object is
        self._starts = array("q", [0])
        for cut in read_manifest(path, dict):
            self._starts.append(self._starts[-1] + self._lines.write(json.dumps(cut).encode()))
        self._lines.flush()

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, number: Any) -> Any:
        from lhotse.serialization import deserialize_item

        if not 0 <= number < len(self):
            raise IndexError(number)
        start, stop = self._starts[number : number + 2]
        line = json.loads(os.pread(self._lines.fileno(), stop - start, start))
        try:
            return deserialize_item(line)
        except DAMAGED as error:
            raise damaged_manifest(self._path, error) from None


def storage_key(name: str) -> str:
    """The name of the file with an array of the cut ``name``, which may be any text: it leads into no other folder."""
    return name.replace("%", "%25").replace("/", "%2F") + ".npy"


def in_whole_samples(cut: MonoCut) -> MonoCut:
    """A copy that is a whole number of samples long at the rate that it has now.

    Otherwise the frames of its features and of its senones may differ by one: Lhotse counts those from samples, and
    these from seconds.
    """
    from lhotse.utils import compute_num_samples, fastcopy

    return fastcopy(cut, duration=compute_num_samples(cut.duration, cut.sampling_rate) / cut.sampling_rate)


def checksum_field(name: str) -> str:
    """The custom field of a cut with the checksum of its "features" or "senones"."""
    return f"{name}_crc32"


def check_array(cut: MonoCut, name: str, array: np.ndarray) -> np.ndarray:
    """``array``, if it is the one whose checksum the cut has.  Parts of it, and cuts without a checksum, pass.

    Raises:
        UserError: it is another one.
    """
    expected = (cut.custom or {}).get(checksum_field(name))
    stored = cut.features.num_frames if name == "features" else (cut.custom or {})[name].shape[0]
    if expected is not None and cut.num_frames == stored and array_checksum(array) != expected:
        raise UserError(
            f"the {name} of {cut.id} have changed since they were written (their checksum differs): delete the folder "
            f"that has them ({cut_folder(cut, name)}) and run its stage again"
        )
    return array


def cut_folder(cut: MonoCut, name: str) -> str:
    """Where the "features" or "senones" of a cut are stored."""
    manifest = cut.features if name == "features" else (cut.custom or {})[name].array
    return str(getattr(manifest, "storage_path", "") or "memory")


def load_senones(cut: MonoCut) -> np.ndarray:
    """The senone of each frame of a cut (T,).

    Raises:
        UserError: they are missing or damaged.
    """
    try:
        senones: np.ndarray = cut.load_custom("senones")
    except UNREADABLE as error:
        raise UserError(f"the senones of {cut.id} cannot be read ({error}): run the alignment again") from None
    if senones.ndim != 1 or senones.dtype.kind not in "iu":
        raise UserError(f"the senones of {cut.id} are no whole numbers (T,): run the alignment again")
    return check_array(cut, "senones", senones)
